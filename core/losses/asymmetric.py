"""Asymmetric loss, original and robust."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.losses.statistics import EntryLoss, require


class Asymmetric(EntryLoss):
    """-[y (1-p)^g+ log p + (1-y) p_m^g- log(1-p_m)], p_m = max(p - m, 0).

    Ridnik et al. 2021, eq. 4 to 7. The focusing factors have a gradient, as in the paper. Raises
    UserError if a gamma is negative or the margin m outside [0, 1).
    """

    def __init__(
        self, gamma_neg: float = 4.0, gamma_pos: float = 0.0, margin: float = 0.05
    ) -> None:
        super().__init__()
        for option, gamma in (("gamma_neg", gamma_neg), ("gamma_pos", gamma_pos)):
            require(0 <= gamma < math.inf, option, "be at least 0 and finite", gamma)
        require(0 <= margin < 1, "margin", "lie in [0, 1)", margin)
        self.gamma_neg, self.gamma_pos, self.margin = gamma_neg, gamma_pos, margin

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # (1-p)^g in log-space: a power of 0 has no gradient for g below 1
        focus = torch.exp(self.gamma_pos * logsigmoid(-logits))
        return focus * self._positive(logits), self._negative(logits)

    def _positive(self, logits: Tensor) -> Tensor:
        return -logsigmoid(logits)

    def _negative(self, logits: Tensor) -> Tensor:
        if self.margin == 0:
            return -torch.exp(self.gamma_neg * logsigmoid(logits)) * logsigmoid(-logits)
        # log(1 - p_m) = log(1 - p + m) where p > m, stable for any logit because m > 0
        log_absent = torch.logaddexp(
            logsigmoid(-logits), torch.full_like(logits, math.log(self.margin))
        )
        shifted = torch.sigmoid(logits) - self.margin
        above = shifted > 0
        # the inner where keeps the gradient of a power below 1 finite at the margin
        focus = torch.where(above, shifted, 1) ** self.gamma_neg
        return torch.where(above, -focus * log_absent, 0)


class RobustAsymmetric(Asymmetric):
    """Asymmetric loss that is robust to label noise (Park et al. 2023).

    The positive term is -[log p + (1-p) - 1.25 (1-p)^2], the expansion of cross-entropy with its
    first two coefficients changed. The negative term has the weight (1.5 - p) p^2 (1.5 - q) with
    q = 1 - p_m, which decreases for p close to 1. Constants and errors as in `Asymmetric`.
    """

    def _positive(self, logits: Tensor) -> Tensor:
        absent = torch.sigmoid(-logits)
        return -logsigmoid(logits) - absent + 1.25 * absent**2

    def _negative(self, logits: Tensor) -> Tensor:
        present = torch.sigmoid(logits)
        shifted = (present - self.margin).clamp(min=0)
        return (1.5 - present) * present**2 * (0.5 + shifted) * super()._negative(logits)
