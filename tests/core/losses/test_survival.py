"""Edge cases of every loss, in every variant and with every wrapper."""

import copy
from typing import Any

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


def test_degenerate_batches(loss: nn.Module) -> None:
    """No positive, positives only, classes of one kind, an image without, one image."""
    assert all(buffer.isfinite().all() for buffer in loss.buffers())
    logits, targets = batch()
    by_class, by_image = targets.clone(), targets.clone()
    by_class[:, 1], by_class[:, 2], by_image[2] = 0, 1, 0
    for one in (targets * 0, targets * 0 + 1, by_class, by_image, targets[:1]):
        # a NaN on the way back, masked or not, is an error here as it is for who looks for one
        with torch.autograd.set_detect_anomaly(True):
            value, gradient = value_and_gradient(loss, logits[: len(one)], one)
        assert value.shape == ()
        assert value.isfinite()
        assert value >= 0
        assert gradient.isfinite().all()


def test_classes_without_positives_or_labels(recipe: Recipe) -> None:
    value, gradient = value_and_gradient(build(recipe, [0] * CLASSES), *batch())
    assert value.isfinite()
    assert value > 0
    assert gradient.isfinite().all()
    targets = torch.tensor([[NAN, 1.0], [NAN, 0.0]])
    unknown = build(recipe, [0, 5], [0, 10])
    value, gradient = value_and_gradient(unknown, torch.zeros(2, 2), targets)
    assert value.isfinite()
    assert gradient[:, 0].eq(0).all()
    assert gradient[:, 1].ne(0).all()


def test_unknown_entries_do_not_count(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.3)
    unknown = targets.isnan()
    value, gradient = value_and_gradient(loss, logits, targets)
    assert value.isfinite()
    assert gradient[unknown].eq(0).all()
    assert gradient.isfinite().all()
    for other in (-50.0, 1e4):
        assert loss(torch.where(unknown, other, logits), targets) == value
    more = torch.cat([logits, torch.randn(3, CLASSES)])
    padded = torch.cat([targets, torch.full((3, CLASSES), NAN)])
    torch.testing.assert_close(loss(more, padded), value)
    for scale in (1.0, 1e4):
        nothing = torch.full_like(logits, NAN)
        value, gradient = value_and_gradient(loss, logits * scale, nothing)
        assert value == 0
        assert gradient.eq(0).all()


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


def test_gradient_is_that_of_the_value(loss: nn.Module) -> None:
    logits, targets = batch(seed=3, images=4, unknown=0.2)
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), leaf)


def test_types_copies_and_moves(recipe: Recipe, loss: nn.Module) -> None:
    logits, targets = batch()
    expected = loss(logits, targets)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        assert loss(logits, targets.to(dtype)) == expected
    assert copy.deepcopy(loss)(logits, targets) == expected
    other = build(recipe, POSITIVES.flip(0) // 2)
    other.load_state_dict(loss.state_dict())
    assert other(logits, targets) == expected
    double = copy.deepcopy(loss).to(torch.float64)(logits.double(), targets.double())
    assert double.dtype == loss(logits.double(), targets).dtype == torch.float64
    torch.testing.assert_close(double, expected.double(), rtol=1e-5, atol=1e-6)
    # "meta" stands for any device: a constant left behind, or a wait for a value, would raise
    moved = copy.deepcopy(loss).to("meta")(logits.to("meta"), targets.to("meta"))
    assert moved.device.type == "meta"
