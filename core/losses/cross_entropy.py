"""Binary cross-entropy: unweighted, with weighted positives, or with weighted classes."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.losses.statistics import EntryLoss, effective_number_weights


class BinaryCrossEntropy(EntryLoss):
    """-[w y log p + (1-y) log(1-p)], w = 1, or clip((N-n)/n, 1, 10) by class with `pos_weight`.

    positives n: (C,); images N: a number, or known labels (C,).
    """

    weight: Tensor

    def __init__(self, positives: Tensor, images: Tensor, pos_weight: bool = False) -> None:
        super().__init__()
        positives = positives.double()
        ratio = (images - positives) / positives.clamp(min=0.5)
        weight = ratio.clamp(1, 10) if pos_weight else torch.ones_like(positives)
        self.register_buffer("weight", weight.float())

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return -self.weight * logsigmoid(logits), -logsigmoid(-logits)


class WeightedCrossEntropy(EntryLoss):
    """w_c BCE, w_c from the effective number of `positives` (C,), Cui et al. 2019, eq. 4.

    Raises UserError if beta is outside [0, 1).
    """

    weight: Tensor

    def __init__(self, positives: Tensor, beta: float = 0.9999) -> None:
        super().__init__()
        self.register_buffer("weight", effective_number_weights(positives, beta).float())

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return -self.weight * logsigmoid(logits), -self.weight * logsigmoid(-logits)
