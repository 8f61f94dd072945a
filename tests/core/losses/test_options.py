"""Options of losses: prior, class weights, wrappers, schedules, errors."""

import math
from decimal import Decimal, localcontext
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.config.loss import LOSS_CONSTANTS, LossConfig
from core.errors import UserError
from core.losses import NAMES, build_loss, prevalence_log_odds
from core.losses.statistics import effective_number_weights
from tests.helpers.loss_cases import (
    ALL,
    AROUND,
    BOTH,
    COUNTS,
    IMAGES,
    KNOWN,
    NAN,
    POSITIVES,
    at_epoch,
    batch,
    plain,
)
from tests.helpers.loss_formulas import truth


def agree(loss: nn.Module, name: str, *batches: tuple[Tensor, Tensor], **around: Any) -> None:
    """Assert that the loss of COUNTS among KNOWN is its paper's in each batch."""
    for logits, targets in batches or (batch(1, images=20), batch(2, images=20, unknown=0.3)):
        expected = truth(name, logits, targets, COUNTS, KNOWN, **around)
        assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


# --- what is known of the classes --------------------------------------------------------------


def test_prevalence_log_odds() -> None:
    # counts are clipped to [1/2, N - 1/2]
    clipped = np.array([0.5, 3, 50, 80, 99.5])
    expected = np.log(clipped / (100 - clipped))
    found = prevalence_log_odds(POSITIVES, IMAGES)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)
    by_class = prevalence_log_odds(np.array([2, 2, 0]), np.array([8, 3, 0]))
    np.testing.assert_allclose(by_class.numpy(), [math.log(1 / 3), math.log(2), 0], atol=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 0.999999])
def test_effective_numbers(beta: float) -> None:
    # with 1 - beta^n in float32 those at .999999 would be 1 % off
    counts = [1, 0, 10, 100_000, 1_000_000]
    with localcontext() as context:
        context.prec = 50
        exact = Decimal(beta)
        raw = [(1 - exact) / (1 - exact**n) for n in counts if n]
        mean = sum(raw) / Decimal(len(raw))
        expected = [float(weight / mean) for weight in raw]
    expected.insert(1, 1.0)  # the class without positives
    found = effective_number_weights(counts, beta)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    # and as a loss has them: at z = 0 an entry of y = 0 weighs w / 2 in the gradient
    for options in ({"name": "weighted_bce"}, {"name": "cb_focal", "gamma": 0}):
        loss = build_loss(positives=counts, images=2_000_000, beta=beta, **options)
        logits = torch.zeros(1, 5, requires_grad=True)
        loss(logits, torch.zeros(1, 5)).backward()
        assert logits.grad is not None
        assert (logits.grad[0] * 2 * 5).tolist() == pytest.approx(expected, rel=1e-6)


# --- logit adjustment --------------------------------------------------------------------------


@ALL
@BOTH
@pytest.mark.parametrize("tau", [1.0, -0.5])
def test_adjustment_adds_tau_log_odds(
    name: str, options: dict[str, Any], positives: list[int], known: list[int], tau: float
) -> None:
    options = options | {"logit_adjust": tau}
    logits, targets = batch(images=20, unknown=0.2)
    expected = truth(name, logits, targets, positives, known, **options)
    found = build_loss(name, positives, known, **options)(logits, targets)
    assert found.item() == pytest.approx(expected, rel=1e-5)


# --- label smoothing ---------------------------------------------------------------------------


@ALL
def test_targets_may_lie_between_0_and_1(name: str, options: dict[str, Any]) -> None:
    logits, targets = batch(images=20, unknown=0.2)
    soft = targets * torch.rand(targets.shape, generator=torch.Generator().manual_seed(0))
    agree(build_loss(name, COUNTS, KNOWN, **options), name, (logits, soft), **options)


@ALL
def test_smoothing_moves_targets_towards_one_half(name: str, options: dict[str, Any]) -> None:
    options = options | {"label_smooth": 0.1}
    agree(build_loss(name, COUNTS, KNOWN, **options), name, **options)


# --- deferred re-weighting ---------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("more", [{}, {"logit_adjust": 0.7, "label_smooth": 0.2}])
def test_positives_are_reweighted_from_drw_epoch_on(
    name: str, options: dict[str, Any], more: dict[str, Any]
) -> None:
    options = options | more
    loss = build_loss(name, COUNTS, KNOWN, drw_epoch=4, **options)
    agree(loss, name, **options)
    # back to 3 as where a run is taken up again
    for epoch, reweighted in ((1, False), (3, False), (4, True), (9, True), (3, False)):
        agree(at_epoch(loss, epoch), name, reweighted=reweighted, **options)


@pytest.mark.parametrize(
    ("options", "first"),
    [({}, 61), ({"epochs": 10}, 7), ({"epochs": 7}, 5), ({"epochs": 1}, 1), ({"drw_epoch": 2}, 2)],
    ids=str,
)
def test_ldam_drw_reweights_after_three_fifths(options: dict[str, Any], first: int) -> None:
    loss = build_loss("ldam_drw", COUNTS, KNOWN, **options)
    for epoch in range(max(first - 2, 0), first + 3):
        agree(at_epoch(loss, epoch), "ldam", batch(1), reweighted=epoch >= first)


# --- the command line's lists ------------------------------------------------------------------


def test_flags_offer_every_loss_and_constant() -> None:
    assert get_args(get_type_hints(LossConfig)["loss"]) == NAMES

    def takes(name: str, constant: str) -> bool:
        try:
            plain(name, **{constant: 0.5})
        except UserError:
            return False
        return True

    taken = {constant: any(takes(name, constant) for name in NAMES) for constant in LOSS_CONSTANTS}
    assert all(taken.values()), taken


# --- refusals ----------------------------------------------------------------------------------


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UserError, match="no loss 'robust-asl': did you mean 'robust_asl'"):
        plain("robust-asl")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("asl", "gamma_neg", -0.5), ("asl", "gamma_pos", math.inf), ("asl", "margin", 1)),
        *(("robust_asl", "margin", -0.1), ("focal", "gamma", -0.5), ("focal", "alpha", 1.5)),
        *(("weighted_bce", "beta", 1), ("cb_focal", "beta", -0.1), ("cb_focal", "gamma", -0.5)),
        *(("ldam", "max_margin", 1), ("ldam", "scale", 0), ("ldam_drw", "scale", math.inf)),
        *(("distribution_balanced", "alpha", -0.5), ("distribution_balanced", "gamma", -0.5)),
        *(("distribution_balanced", "beta", 0), ("distribution_balanced", "neg_scale", 0)),
        *(("distribution_balanced", "mu", math.inf), ("distribution_balanced", "kappa", NAN)),
        *(("two_way", "temperature", 0), ("bce", "logit_adjust", -math.inf)),
        *(("bce", "label_smooth", 1), ("bce", "drw_epoch", 0)),
        # of another loss, or of none
        *(("bce", "beta", 0.5), ("asl", "gamma", 2), ("ldam_drw", "drw", 1), ("focal", "margn", 0)),
    ],
)
def test_wrong_options_are_named(name: str, option: str, value: float) -> None:
    for wrong in (value, NAN):
        with pytest.raises(UserError, match=rf"\b{option}\b"):
            plain(name, **{option: wrong})


@pytest.mark.parametrize(
    ("positives", "images"),
    [([3, 11], 10), ([3, 5], [10, 4]), ([-1, 3], 10), ([3, NAN], 10), ([1, 2], [9, 9, 9])],
    ids=str,
)
def test_counts_that_contradict_each_other_are_refused(positives: list[float], images: Any) -> None:
    with pytest.raises(UserError, match="positives"):
        build_loss("asl", positives, images)


@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_targets_of_another_shape_are_refused(name: str, around: dict[str, Any]) -> None:
    loss = build_loss(name, [1, 1, 1], 10, **around)
    with pytest.raises(ValueError, match="differ"):
        loss(torch.zeros(4, 3), torch.zeros(4, 1))
