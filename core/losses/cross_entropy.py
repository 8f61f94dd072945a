"""Binary cross-entropy: plain, with weighted positives, or with weighted classes."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from core.losses.statistics import effective_number_weights, mean_of_known, split_known


class BinaryCrossEntropy(nn.Module):
    """-[w y log p + (1-y) log(1-p)], w = 1, or with `pos_weight` clip((N-n)/n, 1, 10) per class."""

    weight: Tensor

    def __init__(self, positives: Tensor, images: Tensor, pos_weight: bool = False) -> None:
        super().__init__()
        positives = positives.double()
        ratio = (images - positives) / positives.clamp(min=0.5)
        weight = ratio.clamp(1, 10) if pos_weight else torch.ones_like(positives)
        self.register_buffer("weight", weight.float())

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar mean over known entries of logits and targets (B, C)."""
        logits, targets, known = split_known(logits, targets)
        entries = -(
            self.weight * targets * logsigmoid(logits) + (1 - targets) * logsigmoid(-logits)
        )
        return mean_of_known(entries, known, weights)


class WeightedCrossEntropy(nn.Module):
    """w_c BCE, w_c from the effective number of positives (Cui et al. 2019, eq. 4).

    Raises UserError where beta lies outside [0, 1).
    """

    weight: Tensor

    def __init__(self, positives: Tensor, beta: float = 0.9999) -> None:
        super().__init__()
        self.register_buffer("weight", effective_number_weights(positives, beta).float())

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar mean over known entries of logits and targets (B, C)."""
        logits, targets, known = split_known(logits, targets)
        entries = targets * logsigmoid(logits) + (1 - targets) * logsigmoid(-logits)
        return mean_of_known(-self.weight * entries, known, weights)
