"""Focal loss, with a constant weight of positives or class weights."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.losses.statistics import EntryLoss, effective_number_weights, require


class Focal(EntryLoss):
    """alpha_t (1 - p_t)^gamma BCE (Lin et al. 2017, eq. 5); alpha below 0 disables alpha.

    Raises UserError if gamma is negative or not finite, or alpha above 1.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        require(0 <= gamma < math.inf, "gamma", "be at least 0 and finite", gamma)
        require(alpha <= 1, "alpha", "be at most 1", alpha)
        self.gamma = gamma
        self.alphas = (1.0, 1.0) if alpha < 0 else (alpha, 1 - alpha)

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = (focal_entries(one, self.gamma) for one in (logits, -logits))
        return self.alphas[0] * positive, self.alphas[1] * negative


class ClassBalancedFocal(EntryLoss):
    """w_c (1 - p_t)^gamma BCE, w_c from the effective number (Cui et al. 2019, eq. 8).

    positives: (C,). Raises UserError if beta is outside [0, 1), or gamma negative or not finite.
    """

    weight: Tensor

    def __init__(self, positives: Tensor, beta: float = 0.9999, gamma: float = 2.0) -> None:
        super().__init__()
        require(0 <= gamma < math.inf, "gamma", "be at least 0 and finite", gamma)
        self.gamma = gamma
        self.register_buffer("weight", effective_number_weights(positives, beta).float())

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = (focal_entries(one, self.gamma) for one in (logits, -logits))
        return self.weight * positive, self.weight * negative


def focal_entries(margin: Tensor, gamma: float) -> Tensor:
    """-(1 - p_t)^gamma log p_t, p_t = sigmoid(margin), any shape; in log-space for gamma < 1."""
    return -torch.exp(gamma * logsigmoid(-margin)) * logsigmoid(margin)
