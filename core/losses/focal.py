"""Focal loss."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from core.errors import UserError
from core.losses.statistics import mean_of_known, split_known


class Focal(nn.Module):
    """alpha_t (1 - p_t)^gamma BCE (Lin et al. 2017, eq. 5); alpha below 0 switches alpha off.

    Raises UserError where gamma is negative or alpha above 1.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        if not gamma >= 0:
            raise UserError(f"focal: gamma must be at least 0, not {gamma}")
        if not alpha <= 1:
            raise UserError(f"focal: alpha must be at most 1, not {alpha}")
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Scalar mean over known entries of logits and targets (B, C)."""
        logits, targets, known = split_known(logits, targets)
        entries = self._entries(logits, positive=True) * targets
        entries = entries + self._entries(-logits, positive=False) * (1 - targets)
        return mean_of_known(entries, known)

    def _entries(self, margin: Tensor, *, positive: bool) -> Tensor:
        """Loss where p_t = sigmoid(margin); log-space keeps a gamma below 1 differentiable."""
        focus = torch.exp(self.gamma * logsigmoid(-margin))
        alpha = 1.0 if self.alpha < 0 else self.alpha if positive else 1 - self.alpha
        return -alpha * focus * logsigmoid(margin)
