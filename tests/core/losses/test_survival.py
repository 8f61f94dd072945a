"""What every loss must survive, in every variant and with everything that goes around it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from core.losses import NAMES, build_loss
from tests.helpers.loss_cases import (
    AROUND,
    CLASSES,
    EVERY,
    IMAGES,
    NAN,
    POSITIVES,
    at_epoch,
    batch,
    label,
    value_and_gradient,
)

Recipe = tuple[str, dict[str, Any]]


@pytest.fixture(
    params=[
        pytest.param((name, options | around), id=label(name, options | around))
        for name, options in EVERY
        for around in AROUND
    ]
)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Name and options of each loss, alone and with each of the wrappers."""
    return request.param


def build(
    recipe: Recipe, positives: ArrayLike | Tensor = POSITIVES, images: ArrayLike | Tensor = IMAGES
) -> nn.Module:
    """The loss, past its drw_epoch where it has one."""
    name, options = recipe
    loss = build_loss(name, positives, images, **options)
    return at_epoch(loss, options["drw_epoch"] + 1) if "drw_epoch" in options else loss


@pytest.fixture
def loss(recipe: Recipe) -> nn.Module:
    return build(recipe)


def test_every_name_is_tested() -> None:
    assert {name for name, _ in EVERY} == set(NAMES)


# --- 1, 4: degenerate batches and counts (POSITIVES has 0 and N) -------------------------------


def _targets(kind: str) -> Tensor:
    _, targets = batch()
    if kind == "no positive":
        targets[:] = 0
    elif kind == "positives only":
        targets[:] = 1
    elif kind == "a class without, a class with only positives":
        targets[:, 1], targets[:, 2] = 0, 1
    elif kind == "one image":
        return targets[:1]
    else:
        targets[2] = 0
    return targets


@pytest.mark.parametrize(
    "kind",
    [
        "no positive",
        "positives only",
        "a class without, a class with only positives",
        "an image without",
        "one image",
    ],
)
def test_degenerate_batches(loss: nn.Module, kind: str) -> None:
    targets = _targets(kind)
    # a NaN on the way back, masked or not, is an error here as it is for who looks for one
    with torch.autograd.set_detect_anomaly(True):
        value, gradient = value_and_gradient(loss, batch()[0][: len(targets)], targets)
    assert value.shape == ()
    assert value.isfinite()
    assert value >= 0
    assert gradient.isfinite().all()


def test_what_is_kept_of_degenerate_classes_is_finite(loss: nn.Module) -> None:
    assert all(buffer.isfinite().all() for buffer in loss.buffers())


def test_no_class_has_a_positive(recipe: Recipe) -> None:
    logits, targets = batch()
    value, gradient = value_and_gradient(build(recipe, [0] * CLASSES), logits, targets)
    assert value.isfinite()
    assert value > 0
    assert gradient.isfinite().all()


def test_counts_may_be_per_class_and_of_any_kind(recipe: Recipe) -> None:
    logits, targets = batch()
    expected = build(recipe)(logits, targets)
    known = np.full(CLASSES, IMAGES)
    for positives, images in (
        (POSITIVES.numpy(), known),
        (POSITIVES.tolist(), known.tolist()),
        (POSITIVES.double(), torch.tensor(100.0)),
    ):
        assert build(recipe, positives, images)(logits, targets) == expected


def test_a_class_of_which_nothing_is_known(recipe: Recipe) -> None:
    loss = build(recipe, [0, 5], [0, 10])
    targets = torch.tensor([[NAN, 1.0], [NAN, 0.0]])
    value, gradient = value_and_gradient(loss, torch.zeros(2, 2), targets)
    assert value.isfinite()
    assert gradient[:, 0].eq(0).all()
    assert gradient[:, 1].ne(0).all()


# --- 2: unknown targets ------------------------------------------------------------------------


def test_unknown_entries_do_not_count(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.3)
    unknown = targets.isnan()
    assert unknown.any()
    value, gradient = value_and_gradient(loss, logits, targets)
    assert value.isfinite()
    assert gradient[unknown].eq(0).all()
    assert gradient.isfinite().all()
    for other in (-50.0, 1e4):
        assert loss(torch.where(unknown, other, logits), targets) == value


def test_an_unknown_image_changes_nothing(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.2)
    more = torch.cat([logits, torch.randn(3, CLASSES)])
    unknown = torch.cat([targets, torch.full((3, CLASSES), NAN)])
    torch.testing.assert_close(loss(more, unknown), loss(logits, targets))


def test_nothing_known_is_zero_with_zero_gradient(loss: nn.Module) -> None:
    for scale in (1.0, 1e4):
        logits = batch()[0] * scale
        value, gradient = value_and_gradient(loss, logits, torch.full_like(logits, NAN))
        assert value == 0
        assert gradient.eq(0).all()


# --- 3: extremes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float16, 20.0),
        (torch.bfloat16, 20.0),
        (torch.float32, 100.0),
        (torch.float32, 1e4),
        (torch.float64, 1e4),
    ],
)
def test_extreme_logits(loss: nn.Module, dtype: torch.dtype, size: float) -> None:
    signs = torch.tensor([[1.0, -1, 1, -1, 1], [-1, 1, -1, 1, -1]])
    for targets in (signs.clamp(min=0), (-signs).clamp(min=0), torch.zeros(2, 5), torch.ones(2, 5)):
        value, gradient = value_and_gradient(loss, (size * signs).to(dtype), targets)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_a_confident_miss_has_a_gradient(loss: nn.Module) -> None:
    # column 2 is the balanced class, so that adjustment leaves its logit alone
    logits, targets = torch.zeros(1, CLASSES), torch.zeros(1, CLASSES)
    logits[0, 2], targets[0, 2] = -100, 1
    _, gradient = value_and_gradient(loss, logits, targets)
    assert gradient[0, 2] < -1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised(loss: nn.Module, dtype: torch.dtype) -> None:
    logits, targets = batch(unknown=0.2)
    half = logits.to(dtype)
    value = loss(half, targets)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(half, targets) == value
    assert value_and_gradient(loss, half, targets)[1].dtype == dtype


# --- 5 to 8: types, side effects, gradients, copies and moves ----------------------------------


def test_target_types_agree(loss: nn.Module) -> None:
    logits, targets = batch()
    expected = loss(logits, targets)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        assert loss(logits, targets.to(dtype)) == expected


def test_the_caller_is_left_alone(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.2)
    kept = logits.clone(), targets.clone()
    buffers = {name: buffer.clone() for name, buffer in loss.state_dict().items()}
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            value = loss(logits.requires_grad_(), targets)
            assert torch.is_grad_enabled() is enabled
            assert value.requires_grad is enabled
    assert torch.equal(logits, kept[0])
    assert torch.equal(targets.nan_to_num(-7), kept[1].nan_to_num(-7))
    assert all(torch.equal(buffers[name], now) for name, now in loss.state_dict().items())


def test_the_counts_are_left_alone(recipe: Recipe) -> None:
    logits, targets = batch()
    positives, images = POSITIVES.double(), torch.full((CLASSES,), 100.0, dtype=torch.float64)
    loss = build(recipe, positives, images)
    value = loss(logits, targets)
    assert torch.equal(positives, POSITIVES.double())
    # nor does the loss look at them again
    positives.zero_()
    images.fill_(7)
    assert loss(logits, targets) == value


def test_gradient_is_that_of_the_value(loss: nn.Module) -> None:
    logits, targets = batch(seed=3, images=4, unknown=0.2)
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), leaf)


def test_copies_and_states(recipe: Recipe, loss: nn.Module) -> None:
    logits, targets = batch()
    expected = loss(logits, targets)
    assert copy.deepcopy(loss)(logits, targets) == expected
    other = build(recipe, POSITIVES.flip(0) // 2)
    other.load_state_dict(loss.state_dict())
    assert other(logits, targets) == expected


def test_moves(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.2)
    double = copy.deepcopy(loss).to(torch.float64)(logits.double(), targets.double())
    assert double.dtype == loss(logits.double(), targets).dtype == torch.float64
    torch.testing.assert_close(double, loss(logits, targets).double(), rtol=1e-5, atol=1e-6)
    # "meta" stands for any device: a constant left behind, or a wait for a value, would raise
    moved = copy.deepcopy(loss).to("meta")(logits.to("meta"), targets.to("meta"))
    assert moved.device.type == "meta"
