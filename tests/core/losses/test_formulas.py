"""Losses against the formulas of their papers and other libraries."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchvision.ops import sigmoid_focal_loss

from core.losses import build_loss
from tests.helpers.loss_cases import ALL, BOTH, COUNTS, KNOWN, batch, plain
from tests.helpers.loss_formulas import truth


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


def focal(alpha: float, gamma: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, y: sigmoid_focal_loss(z, y, alpha=alpha, gamma=gamma, reduction="mean")


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        (plain("bce"), binary_cross_entropy_with_logits),
        (
            plain("bce", pos_weight=True),
            # (N - n) / n of 0, 3, 50, 80 and 100 in 100, clipped to 1..10
            lambda z, y: binary_cross_entropy_with_logits(
                z, y, pos_weight=torch.tensor([10.0, 10, 1, 1, 1])
            ),
        ),
        (plain("focal"), focal(0.25, 2)),
        (plain("focal", alpha=-1, gamma=1.5), focal(-1, 1.5)),
        (plain("asl", gamma_neg=2, gamma_pos=2, margin=0), focal(-1, 2)),
    ],
)
def test_torchs_and_torchvisions(
    loss: nn.Module, theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    logits, targets = batch(images=50)
    torch.testing.assert_close(loss(logits, targets), theirs(logits, targets))


@pytest.mark.parametrize(
    ("name", "options", "theirs", "arguments"),
    [
        (
            *("asl", {"gamma_neg": 3, "gamma_pos": 1, "margin": 0.1}),
            *("AsymmetricLossMultiLabel", {"gamma_neg": 3, "gamma_pos": 1, "clip": 0.1}),
        ),
        (
            *("distribution_balanced", {}),
            # the reference code divides kappa by neg_scale and doubles the loss
            "DistributionBalancedLoss",
            {"class_counts": COUNTS, "num_samples": 100, "init_bias": 0.05 * 2, "focal_balance": 1},
        ),
        ("two_way", {"temperature": 1.0}, "TwoWayLoss", {"tp": 1.0}),
        ("two_way", {}, "TwoWayLoss", {"tp": 4.0}),
    ],
)
def test_timms(name: str, options: dict[str, Any], theirs: str, arguments: dict[str, Any]) -> None:
    pytest.importorskip("timm", minversion="1.0.31")  # older versions lack some
    logits, targets = batch(images=50)
    more = {"reduction": "mean"} if name == "asl" else {}
    other = getattr(importlib.import_module("timm.loss"), theirs)(**arguments, **more)
    ours = build_loss(name, COUNTS, 100, **options)
    torch.testing.assert_close(ours(logits, targets), other(logits, targets))


def test_two_way_with_one_positive_each_is_cross_entropy_both_ways() -> None:
    logits = batch(images=5)[0]
    both = cross_entropy(logits, torch.arange(5)) + cross_entropy(logits.T, torch.arange(5))
    torch.testing.assert_close(plain("two_way", temperature=0.5)(logits, torch.eye(5)), both)
