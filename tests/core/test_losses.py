"""Losses: what every one of them must survive, and what each is by formula or reference."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from core.errors import UserError
from core.losses import NAMES, build_loss, prevalence_log_odds

# a class without a positive, a rare one, a balanced one, a common one, one with positives only
POSITIVES = torch.tensor([0, 3, 50, 80, 100])
IMAGES = 100
CLASSES = len(POSITIVES)
NAN = math.nan

# a new loss joins here: (name, options), in every variant that has code of its own
EVERY: list[tuple[str, dict[str, Any]]] = [
    ("asl", {}),
    ("asl", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ("asl", {"gamma_neg": 2.0, "gamma_pos": 1.0, "margin": 0.0}),
    ("bce", {}),
    ("bce", {"pos_weight": True}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "alpha": -1.0}),
]


def _label(name: str, options: dict[str, Any]) -> str:
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


@pytest.fixture(
    params=[
        pytest.param((name, options | adjust), id=_label(name, options | adjust))
        for name, options in EVERY
        for adjust in ({}, {"logit_adjust": 1.0})
    ]
)
def recipe(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name and options of each loss, with and without logit adjustment."""
    return request.param


@pytest.fixture
def loss(recipe: tuple[str, dict[str, Any]]) -> nn.Module:
    name, options = recipe
    return build_loss(name, POSITIVES, IMAGES, **options)


def batch(seed: int = 0, images: int = 6, unknown: float = 0.0) -> tuple[Tensor, Tensor]:
    """Random logits and 0/1 targets (images, CLASSES), a part of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, generator=generator) * 2
    targets = (torch.rand(images, CLASSES, generator=generator) < 0.4).float()
    hidden = torch.rand(images, CLASSES, generator=generator) < unknown
    return logits, torch.where(hidden, NAN, targets)


def value_and_gradient(loss: nn.Module, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, targets)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


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
    ],
)
def test_degenerate_batches(loss: nn.Module, kind: str) -> None:
    value, gradient = value_and_gradient(loss, batch()[0], _targets(kind))
    assert value.shape == ()
    assert value.isfinite()
    assert value >= 0
    assert gradient.isfinite().all()


def test_the_prior_of_degenerate_classes_is_finite(loss: nn.Module) -> None:
    assert all(buffer.isfinite().all() for buffer in loss.buffers())


def test_counts_may_be_per_class_and_of_any_kind(recipe: tuple[str, dict[str, Any]]) -> None:
    name, options = recipe
    logits, targets = batch()
    expected = build_loss(name, POSITIVES, IMAGES, **options)(logits, targets)
    known = np.full(CLASSES, IMAGES)
    for positives, images in (
        (POSITIVES.numpy(), known),
        (POSITIVES.tolist(), known.tolist()),
        (POSITIVES.double(), torch.tensor(100.0)),
    ):
        assert build_loss(name, positives, images, **options)(logits, targets) == expected


def test_a_class_of_which_nothing_is_known(recipe: tuple[str, dict[str, Any]]) -> None:
    name, options = recipe
    loss = build_loss(name, [0, 5], [0, 10], **options)
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


def test_float64_stays(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.2)
    value = loss(logits.double(), targets)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, loss(logits, targets).double(), rtol=1e-5, atol=1e-6)


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


def test_gradient_is_that_of_the_value(loss: nn.Module) -> None:
    logits, targets = batch(seed=3, images=4, unknown=0.2)
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), leaf)


def test_copies_and_states(recipe: tuple[str, dict[str, Any]], loss: nn.Module) -> None:
    logits, targets = batch()
    expected = loss(logits, targets)
    assert copy.deepcopy(loss)(logits, targets) == expected
    name, options = recipe
    other = build_loss(name, POSITIVES.flip(0) // 2, IMAGES, **options)
    other.load_state_dict(loss.state_dict())
    assert other(logits, targets) == expected


def test_moves(loss: nn.Module) -> None:
    logits, targets = batch(unknown=0.2)
    double = copy.deepcopy(loss).to(torch.float64)(logits.double(), targets.double())
    torch.testing.assert_close(double, loss(logits, targets).double(), rtol=1e-5, atol=1e-6)
    # "meta" stands for any device: a constant left behind, or a wait for a value, would raise
    moved = copy.deepcopy(loss).to("meta")(logits.to("meta"), targets.to("meta"))
    assert moved.device.type == "meta"


# --- 9: identities and formulas ----------------------------------------------------------------


def plain(name: str, **options: Any) -> nn.Module:
    return build_loss(name, POSITIVES, IMAGES, **options)


def test_asl_by_its_formula() -> None:
    logits, targets = batch(images=50)
    z, y = logits.double().numpy(), targets.numpy()
    for positive, negative, margin in ((0, 4, 0.05), (1, 2, 0.2), (0.5, 0.5, 0), (3, 1, 0.9)):
        p = 1 / (1 + np.exp(-z))
        shifted = np.maximum(p - margin, 0)
        entries = -(
            y * (1 - p) ** positive * np.log(p) + (1 - y) * shifted**negative * np.log(1 - shifted)
        )
        loss = plain("asl", gamma_pos=positive, gamma_neg=negative, margin=margin)
        assert loss(logits, targets).item() == pytest.approx(entries.mean(), rel=1e-5)


def test_asl_defaults_at_one_confident_false_alarm() -> None:
    logit = torch.tensor([[math.log(0.95 / 0.05)]])
    # .9^4 log(10); the published code that focuses by (1 - p)^4 gives 1.4e-5
    assert plain("asl")(logit, torch.zeros(1, 1)).item() == pytest.approx(1.51, abs=5e-3)
    assert plain("asl")(logit, torch.ones(1, 1)).item() == pytest.approx(-math.log(0.95))


def test_asl_below_its_margin_is_zero() -> None:
    logits = torch.full((1, 1), math.log(0.04 / 0.96))
    value, gradient = value_and_gradient(plain("asl"), logits, torch.zeros(1, 1))
    assert value == 0
    assert gradient.item() == 0


def test_asl_without_focus_is_bce() -> None:
    logits, targets = batch(images=50, unknown=0.2)
    asl = plain("asl", gamma_neg=0, gamma_pos=0, margin=0)
    torch.testing.assert_close(asl(logits, targets), plain("bce")(logits, targets))


def test_symmetric_asl_is_focal() -> None:
    logits, targets = batch(images=50, unknown=0.2)
    asl = plain("asl", gamma_neg=2, gamma_pos=2, margin=0)
    focal = plain("focal", gamma=2, alpha=-1)
    torch.testing.assert_close(asl(logits, targets), focal(logits, targets))


def test_bce_is_torchs() -> None:
    logits, targets = batch(images=50, unknown=0.2)
    known = ~targets.isnan()
    truth = binary_cross_entropy_with_logits(logits[known], targets[known])
    torch.testing.assert_close(plain("bce")(logits, targets), truth)


def test_pos_weight_is_torchs_with_the_clipped_ratio() -> None:
    logits, targets = batch(images=50)
    # (N - n) / n of 0, 3, 50, 80 and 100 in 100, clipped to 1..10
    weight = torch.tensor([10.0, 10, 1, 1, 1])
    truth = binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    torch.testing.assert_close(plain("bce", pos_weight=True)(logits, targets), truth)
    by_class = build_loss("bce", [20, 20], [100, 60], pos_weight=True)
    assert by_class(torch.zeros(1, 2), torch.ones(1, 2)).item() == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("alpha", [0.25, 0.0, 1.0, -1.0])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_is_torchvisions(alpha: float, gamma: float) -> None:
    logits, targets = batch(images=50)
    truth = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(plain("focal", alpha=alpha, gamma=gamma)(logits, targets), truth)


def test_focal_defaults_are_those_of_the_paper() -> None:
    logits, targets = batch(images=50)
    truth = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="mean")
    torch.testing.assert_close(plain("focal")(logits, targets), truth)


# --- prior and adjustment ----------------------------------------------------------------------


def test_prevalence_log_odds() -> None:
    # counts are clipped to [1/2, N - 1/2]
    clipped = np.array([0.5, 3, 50, 80, 99.5])
    truth = np.log(clipped / (100 - clipped))
    found = prevalence_log_odds(POSITIVES, IMAGES)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), truth, rtol=1e-12, atol=1e-15)
    by_class = prevalence_log_odds(np.array([2, 2, 0]), np.array([8, 3, 0]))
    np.testing.assert_allclose(by_class.numpy(), [math.log(1 / 3), math.log(2), 0], atol=1e-15)


@pytest.mark.parametrize(("name", "options"), EVERY, ids=[_label(*case) for case in EVERY])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_adjustment_adds_tau_log_odds(name: str, options: dict[str, Any], tau: float) -> None:
    logits, targets = batch(images=20, unknown=0.2)
    clipped = torch.tensor([0.5, 3, 50, 80, 99.5])
    shifted = logits + tau * torch.log(clipped / (100 - clipped))
    truth = plain(name, **options)(shifted, targets)
    adjusted = plain(name, **options, logit_adjust=tau)
    torch.testing.assert_close(adjusted(logits, targets), truth)


def test_adjusted_bce_is_at_rest_where_a_logit_says_no_more_than_the_prior() -> None:
    # with the wrong sign the optimum would lie at twice the log-odds
    loss = build_loss("bce", [20], 100, logit_adjust=1.0)
    targets = (torch.arange(100) < 20).float()[:, None]
    shared = torch.zeros(1, 1, requires_grad=True)
    loss(shared.expand(100, 1), targets).backward()
    assert shared.grad is not None
    assert shared.grad.item() == pytest.approx(0, abs=1e-7)


def test_half_logits_are_raised_before_the_shift() -> None:
    # in float16, 1e-3 beside a shift of -5.3 would be rounded away
    loss = build_loss("bce", [0], 100, logit_adjust=1.0)
    small = torch.tensor([[1e-3]], dtype=torch.float16)
    truth = -math.log1p(math.exp(-(small.item() + math.log(0.5 / 99.5))))
    assert loss(small, torch.ones(1, 1)).item() == pytest.approx(-truth, rel=1e-6)


# --- refusals ----------------------------------------------------------------------------------


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no loss .asll.: did you mean .asl."):
        plain("asll")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("asl", "gamma_negative", 4),
        ("bce", "beta", 0.9),
        ("focal", "margin", 0.1),
        ("asl", "gamma_neg", -1),
        ("asl", "gamma_pos", NAN),
        ("asl", "margin", 1.0),
        ("asl", "margin", -0.1),
        ("asl", "margin", NAN),
        ("focal", "gamma", -0.5),
        ("focal", "gamma", NAN),
        ("focal", "alpha", 1.5),
        ("focal", "alpha", NAN),
        ("bce", "logit_adjust", NAN),
        ("bce", "logit_adjust", math.inf),
    ],
)
def test_wrong_options_are_named(name: str, option: str, value: object) -> None:
    with pytest.raises(UserError, match=option):
        plain(name, **{option: value})


@pytest.mark.parametrize("shape", [(3,), (4, 1)])
def test_targets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    loss = build_loss("bce", [1, 1, 1], 10)
    with pytest.raises(ValueError, match="differ"):
        loss(torch.zeros(4, 3), torch.zeros(shape))
