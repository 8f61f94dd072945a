"""Losses by name; every loss is `forward(logits, targets) -> scalar`.

Logits (B, C), targets (B, C): 1, 0, NaN for unknown, or soft values y in between, where an entry is
y L(1) + (1 - y) L(0). The mean is over known entries, in float32 even under autocast. Class
statistics are buffers. README.md in this folder recommends which to try.
"""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from core.errors import UserError, suggest_name
from core.losses.asymmetric import Asymmetric, RobustAsymmetric
from core.losses.cross_entropy import BinaryCrossEntropy, WeightedCrossEntropy
from core.losses.distribution_balanced import DistributionBalanced
from core.losses.focal import ClassBalancedFocal, Focal
from core.losses.margin import LabelDistributionAware
from core.losses.statistics import prevalence_log_odds, require
from core.losses.two_way import TwoWay
from core.losses.wrappers import DeferredReweighting, LabelSmoothed, LogitAdjusted

__all__ = ["NAMES", "build_loss", "prevalence_log_odds"]

# class and number of its arguments among (positives, images)
_KINDS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "asl": (Asymmetric, 0),
    "robust_asl": (RobustAsymmetric, 0),
    "bce": (BinaryCrossEntropy, 2),
    "weighted_bce": (WeightedCrossEntropy, 1),
    "focal": (Focal, 0),
    "cb_focal": (ClassBalancedFocal, 1),
    "ldam": (LabelDistributionAware, 1),
    "ldam_drw": (LabelDistributionAware, 1),
    "distribution_balanced": (DistributionBalanced, 2),
    "two_way": (TwoWay, 0),
}
NAMES = tuple(_KINDS)


def build_loss(
    name: str,
    positives: ArrayLike | Tensor,
    images: ArrayLike | Tensor,
    *,
    logit_adjust: float = 0.0,
    label_smooth: float = 0.0,
    drw_epoch: int | None = None,
    epochs: int = 100,
    **options: Any,
) -> nn.Module:
    """Build the loss `name` for `positives` (C,) among `images` (a number, or known labels (C,)).

    The loss maps logits (B, C) and targets (B, C), which are 1, 0, soft or NaN (unknown, left out),
    to a scalar.

    Options: asl, robust_asl: gamma_neg, gamma_pos, margin; bce: pos_weight; weighted_bce: beta;
    focal: alpha, gamma; cb_focal: beta, gamma; ldam, ldam_drw: max_margin, scale; two_way:
    temperature; distribution_balanced: alpha, beta, mu, neg_scale, kappa, gamma. For any loss:
    logit_adjust (tau), label_smooth (eps), drw_epoch (the first of `epochs`, from 1, that
    re-weights positives; ldam_drw: after 60 % of the epochs by default). A loss with re-weighting
    has `set_epoch(epoch)`, from 1. Formulas and papers are in core/losses/README.md. Raises
    UserError for an unknown name or option, a value out of range, and contradicting counts.
    """
    if name not in NAMES:
        raise UserError(f"there is no loss '{name}'{suggest_name(name, NAMES)}")
    try:
        positives, images = _counts(positives, images)
        kind, counts = _KINDS[name]
        loss = kind(*(positives, images)[:counts], **options)
        if logit_adjust:
            loss = LogitAdjusted(loss, positives, images, logit_adjust)
        if label_smooth:
            loss = LabelSmoothed(loss, label_smooth)
        if drw_epoch is None and name == "ldam_drw":
            drw_epoch = 3 * epochs // 5 + 1
        return loss if drw_epoch is None else DeferredReweighting(loss, positives, drw_epoch)
    except UserError as error:
        raise UserError(f"loss {name}: {error}") from error
    except TypeError as error:
        # without the class name in the message
        reason = str(error).rpartition("() ")[2]
        raise UserError(f"loss {name} {reason}") from error


def _counts(positives: ArrayLike | Tensor, images: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Convert counts to tensors. Raises UserError unless 0 <= positives <= images by class."""
    counts, known = torch.as_tensor(positives), torch.as_tensor(images)
    fits = counts.ndim == 1 and known.shape in ((), counts.shape)
    require(fits, "positives", "hold one number a class", f"the shape {tuple(counts.shape)}")
    holds = bool(((counts >= 0) & (counts <= known)).all())
    require(holds, "positives", f"lie within 0 and images ({known.tolist()})", counts.tolist())
    return counts, known
