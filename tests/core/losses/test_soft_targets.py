"""Soft targets y: every loss interpolates between its positive and its negative terms."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.losses import build_loss
from tests.helpers.loss_cases import ALL, AROUND, COUNTS, KNOWN, NAN, at_epoch, batch
from tests.helpers.loss_formulas import class_weights, truth

SOFT_SUMS = [2.25, 9.5, 50.75, 70.125, 95.5]
AROUND_SOFT = pytest.mark.parametrize("around", AROUND[:3], ids=str)


def soft_batch(seed: int, unknown: float = 0.0) -> tuple[Tensor, Tensor]:
    """Logits and targets (20, C): random, a third of them 0 or 1, a part of them unknown."""
    logits, hard = batch(seed, images=20, unknown=unknown)
    generator = torch.Generator().manual_seed(seed + 100)
    soft, keep = torch.rand(2, *hard.shape, generator=generator)
    return logits, torch.where(torch.isnan(hard) | (keep < 1 / 3), hard, soft)


@ALL
@AROUND_SOFT
def test_formula_of_soft_targets(
    name: str, options: dict[str, Any], around: dict[str, Any]
) -> None:
    loss = build_loss(name, SOFT_SUMS, KNOWN, **options, **around)
    for seed, unknown in ((0, 0.0), (1, 0.3)):
        logits, targets = soft_batch(seed, unknown)
        expected = truth(name, logits, targets, SOFT_SUMS, KNOWN, **options, **around)
        assert loss(logits.double(), targets).item() == pytest.approx(expected, rel=2e-6)


@ALL
@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_one_soft_entry_is_the_mean_of_both_outcomes(
    name: str, options: dict[str, Any], smooth: float
) -> None:
    """Also where deferred re-weighting multiplies the positive outcome alone."""
    if name in ("two_way", "distribution_balanced"):
        pytest.skip("their entries depend on each other")
    weights = class_weights(COUNTS)
    loss = build_loss(name, COUNTS, KNOWN, drw_epoch=2, label_smooth=smooth, **options)
    for place, weight in enumerate(weights):
        logits = batch(seed=place, images=1)[0]
        targets = torch.full_like(logits, NAN)

        def both(y: float, logits: Tensor = logits, place: int = place) -> float:
            row = np.full((1, len(COUNTS)), np.nan)
            row[0, place] = y
            return truth(name, logits, row, COUNTS, KNOWN, label_smooth=smooth, **options)

        for y in (0.1, 0.5, 0.9):
            targets[0, place] = y
            before = y * both(1) + (1 - y) * both(0)
            after = y * weight * both(1) + (1 - y) * both(0)
            for epoch, expected in ((1, before), (2, after)):
                found = at_epoch(loss, epoch)(logits.double(), targets).item()
                assert found == pytest.approx(expected, rel=2e-6)


def test_two_way_weighs_an_image_by_its_expected_weight() -> None:
    weights = class_weights(COUNTS)
    logits = torch.tensor([[0.5, -1.0]]).double()
    loss = at_epoch(build_loss("two_way", COUNTS[:2], KNOWN[:2], drw_epoch=1), 1)
    scale = weights[0] / (sum(weights[:2]) / 2)
    expected_weight = 1 - 0.8 + 0.8 * scale
    # the second class has no positive and adds nothing
    gap = np.logaddexp(0.5 + np.log(0.2), -1.0) + 4 * (-0.5 / 4 + np.log(0.8))
    gap_of_class = 0.5 + np.log(0.2) + 4 * (-0.5 / 4 + np.log(0.8))
    expected = expected_weight * (np.logaddexp(0, gap) + np.logaddexp(0, gap_of_class))
    found = loss(logits, torch.tensor([[0.8, 0.0]])).item()
    # the weights of two classes have mean 1
    assert class_weights(COUNTS[:2])[0] == pytest.approx(scale)
    assert found == pytest.approx(expected, rel=2e-6)


@ALL
def test_unknown_entries_have_no_gradient(name: str, options: dict[str, Any]) -> None:
    loss = build_loss(name, SOFT_SUMS, KNOWN, drw_epoch=1, **options)
    at_epoch(loss, 1)
    logits, targets = soft_batch(3, unknown=0.4)
    logits.requires_grad_()
    loss(logits, targets).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[torch.isnan(targets)] == 0).all()
    assert (logits.grad[~torch.isnan(targets)] != 0).any()


def test_sums_below_one_positive_count_as_one() -> None:
    few, one = [0.01, 9, 50, 70, 95], [1, 9, 50, 70, 95]
    for name in ("weighted_bce", "cb_focal", "ldam", "ldam_drw"):
        first, second = (at(build_loss(name, counts, KNOWN)) for counts in (few, one))
        assert first == second


def at(loss: Any) -> list[list[float]]:
    """All class statistics of a loss."""
    return [buffer.tolist() for buffer in loss.buffers()]
