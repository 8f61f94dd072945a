"""Losses by name. One file a family; every loss is `forward(logits, targets) -> scalar`.

Logits (B, C), targets (B, C) with 1, 0 and NaN for unknown; the mean is over known entries, in
float32 whatever the autocast. Class statistics are buffers.
"""

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from core.errors import UserError, nearest
from core.losses.adjust import LogitAdjusted
from core.losses.asymmetric import Asymmetric
from core.losses.cross_entropy import BinaryCrossEntropy
from core.losses.focal import Focal
from core.losses.statistics import prevalence_log_odds

__all__ = ["NAMES", "build_loss", "prevalence_log_odds"]

NAMES = ("asl", "bce", "focal")


def build_loss(
    name: str,
    positives: ArrayLike | Tensor,
    images: ArrayLike | Tensor,
    *,
    logit_adjust: float = 0.0,
    **options: Any,
) -> nn.Module:
    """The loss `name` for classes with `positives` (C,) among `images` (N, or known labels (C,)).

    Options: asl: gamma_neg, gamma_pos, margin; bce: pos_weight; focal: gamma, alpha. Around any of
    them: logit_adjust (tau). Raises UserError for an unknown name or option and for a value out of
    range.
    """
    positives = torch.as_tensor(positives)
    images = torch.as_tensor(images)
    try:
        match name:
            case "asl":
                loss: nn.Module = Asymmetric(**options)
            case "bce":
                loss = BinaryCrossEntropy(positives, images, **options)
            case "focal":
                loss = Focal(**options)
            case _:
                raise UserError(f"there is no loss '{name}'{nearest(name, NAMES)}")
    except TypeError as error:
        raise UserError(f"loss {name}: {error}") from error
    return LogitAdjusted(loss, positives, images, logit_adjust) if logit_adjust else loss
