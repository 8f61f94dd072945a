"""Distribution-balanced loss: re-balanced weights and negative-tolerant regularization."""

import math

import torch
from torch import Tensor

from core.losses.focal import focal_entries
from core.losses.statistics import EntryLoss, prevalence_log_odds, require


class DistributionBalanced(EntryLoss):
    """w [y softplus(-v) + (1-y) softplus(lam v) / lam], v = z - kappa log(1/f - 1).

    Wu et al. 2020, eq. 5 to 9. The weight is w = alpha + sigmoid(beta (r - mu)), where r is the
    fraction of a class in the probability that class-aware sampling draws the image: (1/n_c) over
    the sum of 1/n_j for the image's positive classes, with a target of at least .5. An image
    without positives has w = alpha + 1. The focal factor (1 - p_t)^gamma uses the logit of the
    entry, v or -lam v; gamma 0 disables it. The shift by kappa is for training only. positives n:
    (C,); images, for the prevalence f: a number, or known labels (C,). Raises UserError if alpha or
    gamma is negative, beta or `neg_scale` (lam) is not above 0, or a value is not finite.
    """

    shift: Tensor
    inverse_counts: Tensor

    def __init__(
        self,
        positives: Tensor,
        images: Tensor,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        neg_scale: float = 2.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        require(0 <= alpha < math.inf, "alpha", "be at least 0 and finite", alpha)
        for option, value in (("beta", beta), ("neg_scale", neg_scale)):
            require(0 < value < math.inf, option, "be above 0 and finite", value)
        require(0 <= gamma < math.inf, "gamma", "be at least 0 and finite", gamma)
        for option, value in (("mu", mu), ("kappa", kappa)):
            require(math.isfinite(value), option, "be finite", value)
        self.alpha, self.beta, self.mu = alpha, beta, mu
        self.neg_scale, self.gamma = neg_scale, gamma
        self.register_buffer("shift", (kappa * prevalence_log_odds(positives, images)).float())
        self.register_buffer("inverse_counts", (1 / positives.double().clamp(min=0.5)).float())

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        shifted = logits + self.shift
        positive = focal_entries(shifted, self.gamma)
        negative = focal_entries(-self.neg_scale * shifted, self.gamma) / self.neg_scale
        weights = self._rebalancing(targets >= 0.5)
        return weights * positive, weights * negative

    def _rebalancing(self, positive: Tensor) -> Tensor:
        """Weights (B, C) of the entries, from the positive labels (B, C)."""
        total = (positive * self.inverse_counts).sum(dim=1, keepdim=True)  # (B, 1)
        # an image without positives: the ratio is infinite, and its sigmoid 1
        ratio = self.inverse_counts / torch.where(total > 0, total, 1)
        weights = self.alpha + torch.sigmoid(self.beta * (ratio - self.mu))
        return torch.where(total > 0, weights, self.alpha + 1)
