"""What each loss is: by its paper's formula, in closed form, and as other libraries have it."""

import importlib
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchvision.ops import sigmoid_focal_loss

from core.losses import build_loss
from tests.helpers.loss_cases import (
    ALL,
    BOTH,
    COUNTS,
    KNOWN,
    NAN,
    batch,
    plain,
    value_and_gradient,
)
from tests.helpers.loss_formulas import truth


def one(loss: nn.Module, logit: float, target: float) -> float:
    """The loss of a single entry."""
    return loss(torch.tensor([[logit]]).double(), torch.tensor([[target]])).item()


@pytest.fixture
def timm_losses() -> Any:
    """timm's losses; older versions lack some."""
    pytest.importorskip("timm", minversion="1.0.31")
    return importlib.import_module("timm.loss")


# --- every loss against its paper --------------------------------------------------------------


@ALL
@BOTH
def test_formula(
    name: str, options: dict[str, Any], positives: list[int], known: list[int]
) -> None:
    loss = build_loss(name, positives, known, **options)
    for seed, unknown in ((0, 0.0), (1, 0.2), (2, 0.7)):
        logits, targets = batch(seed, images=20, unknown=unknown)
        expected = truth(name, logits, targets, positives, known, **options)
        assert loss(logits.double(), targets).item() == pytest.approx(expected, rel=2e-6)
        assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


@ALL
def test_formula_of_confident_logits(name: str, options: dict[str, Any]) -> None:
    # a clamp such as log(max(p, 1e-8)) would cut these short
    logits, targets = batch(images=20, unknown=0.2)
    loss = build_loss(name, COUNTS, KNOWN, **options)
    expected = truth(name, logits * 40, targets, COUNTS, KNOWN, **options)
    assert loss(logits * 40, targets).item() == pytest.approx(expected, rel=1e-5)


# --- asymmetric losses -------------------------------------------------------------------------


def test_asl_defaults_at_one_confident_false_alarm() -> None:
    logit = math.log(0.95 / 0.05)
    # .9^4 log(10); the published code that focuses by (1 - p)^4 gives 1.4e-5
    assert one(plain("asl"), logit, 0) == pytest.approx(1.51, abs=5e-3)
    assert one(plain("asl"), logit, 1) == pytest.approx(-math.log(0.95))


@pytest.mark.parametrize("name", ["asl", "robust_asl"])
def test_below_the_margin_a_negative_costs_nothing(name: str) -> None:
    logits = torch.full((1, 1), math.log(0.04 / 0.96))
    value, gradient = value_and_gradient(plain(name), logits, torch.zeros(1, 1))
    assert value == 0
    assert gradient.item() == 0


def test_robust_asl_at_even_odds() -> None:
    # log 2 - 1/2 + 1.25/4, and (1.5 - .5) .5^2 (1.5 - .55) .45^4 (-log .55)
    assert one(plain("robust_asl"), 0, 1) == pytest.approx(0.5056472, rel=1e-6)
    assert one(plain("robust_asl"), 0, 0) == pytest.approx(0.005822325, rel=1e-6)


def test_asl_is_timms(timm_losses: Any) -> None:
    logits, targets = batch(images=50)
    theirs = timm_losses.AsymmetricLossMultiLabel(3, 1, clip=0.1, reduction="mean")
    ours = plain("asl", gamma_neg=3, gamma_pos=1, margin=0.1)
    torch.testing.assert_close(ours(logits, targets), theirs(logits, targets))


# --- cross-entropies and focal losses ----------------------------------------------------------


def test_bce_is_torchs() -> None:
    logits, targets = batch(images=50, unknown=0.2)
    known = ~targets.isnan()
    expected = binary_cross_entropy_with_logits(logits[known], targets[known])
    torch.testing.assert_close(plain("bce")(logits, targets), expected)


def test_pos_weight_is_torchs_with_the_clipped_ratio() -> None:
    logits, targets = batch(images=50)
    # (N - n) / n of 0, 3, 50, 80 and 100 in 100, clipped to 1..10
    weight = torch.tensor([10.0, 10, 1, 1, 1])
    expected = binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    torch.testing.assert_close(plain("bce", pos_weight=True)(logits, targets), expected)
    by_class = build_loss("bce", [20, 20], [100, 60], pos_weight=True)
    assert by_class(torch.zeros(1, 2), torch.ones(1, 2)).item() == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("alpha", [0.25, 0.0, 1.0, -1.0])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_is_torchvisions(alpha: float, gamma: float) -> None:
    logits, targets = batch(images=50)
    expected = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(plain("focal", alpha=alpha, gamma=gamma)(logits, targets), expected)


# --- ldam --------------------------------------------------------------------------------------


def test_ldam_margins_fall_with_the_fourth_root() -> None:
    loss = build_loss("ldam", [16, 256, 0, 1296], 2000, max_margin=0.6, scale=2)
    for column, margin in enumerate((0.6, 0.3, 0.6, 0.2)):
        logits, targets = torch.full((1, 4), 0.1), torch.full((1, 4), NAN)
        targets[0, column] = 1
        cost = math.log1p(math.exp(2 * (margin - 0.1)))
        assert loss(logits, targets).item() == pytest.approx(cost)
        targets[0, column] = 0
        assert loss(logits, targets).item() == pytest.approx(math.log1p(math.exp(0.2)))


# --- distribution-balanced ---------------------------------------------------------------------


def test_distribution_balanced_is_timms(timm_losses: Any) -> None:
    logits, targets = batch(images=50)
    # the reference code divides kappa by neg_scale and doubles the loss
    theirs = timm_losses.DistributionBalancedLoss(COUNTS, 100, init_bias=0.05 * 2, focal_balance=1)
    ours = build_loss("distribution_balanced", COUNTS, 100)
    torch.testing.assert_close(ours(logits, targets), theirs(logits, targets))


# --- two-way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_two_way_with_one_positive_each_is_cross_entropy_both_ways(temperature: float) -> None:
    logits = batch(images=5)[0]
    both = cross_entropy(logits, torch.arange(5)) + cross_entropy(logits.T, torch.arange(5))
    found = plain("two_way", temperature=temperature)(logits, torch.eye(5))
    torch.testing.assert_close(found, both)


def test_two_way_without_a_positive_is_zero() -> None:
    logits = batch()[0]
    value, gradient = value_and_gradient(plain("two_way"), logits, torch.zeros_like(logits))
    assert value == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_two_way_is_timms(timm_losses: Any, temperature: float) -> None:
    logits, targets = batch(images=50)
    theirs = timm_losses.TwoWayLoss(tp=temperature)(logits, targets)
    found = plain("two_way", temperature=temperature)(logits, targets)
    torch.testing.assert_close(found, theirs)


# --- identities --------------------------------------------------------------------------------

NO_FOCUS = {"gamma_neg": 0, "gamma_pos": 0, "margin": 0}
EVEN_FOCUS = {"gamma_neg": 2, "gamma_pos": 2, "margin": 0}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("asl", NO_FOCUS), ("bce", {})),
        (("asl", EVEN_FOCUS), ("focal", {"gamma": 2, "alpha": -1})),
        (("ldam", {"max_margin": 0, "scale": 1}), ("bce", {})),
        (("cb_focal", {"gamma": 0}), ("weighted_bce", {})),
        (("cb_focal", {"beta": 0}), ("focal", {"alpha": -1})),
        (("weighted_bce", {"beta": 0}), ("bce", {})),
        (
            ("distribution_balanced", {"alpha": 0, "mu": -100, "neg_scale": 1, "kappa": 0}),
            ("focal", {"alpha": -1}),
        ),
        (("ldam_drw", {}), ("ldam", {})),
    ],
    ids=str,
)
def test_identities(left: tuple[str, dict[str, Any]], right: tuple[str, dict[str, Any]]) -> None:
    logits, targets = batch(images=50, unknown=0.2)
    first, second = (plain(name, **options)(logits, targets) for name, options in (left, right))
    torch.testing.assert_close(first, second)
