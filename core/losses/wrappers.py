"""Wrappers of any loss: logit adjustment, label smoothing, deferred re-weighting."""

import math

from torch import Tensor, nn

from core.losses.statistics import (
    Coefficients,
    effective_number_weights,
    prevalence_log_odds,
    require,
    split_known,
)


class LogitAdjusted(nn.Module):
    """Add tau log(f / (1-f)) to the training logits (Menon et al. 2021, eq. 10, binary form).

    f is the prevalence by `prevalence_log_odds`. Raises UserError if tau is not finite.
    """

    shift: Tensor

    def __init__(self, loss: nn.Module, positives: Tensor, images: Tensor, tau: float) -> None:
        super().__init__()
        require(math.isfinite(tau), "logit_adjust", "be a finite number", tau)
        self.loss = loss
        self.register_buffer("shift", (tau * prevalence_log_odds(positives, images)).float())

    def forward(
        self, logits: Tensor, targets: Tensor, coefficients: Coefficients | None = None
    ) -> Tensor:
        """Wrapped loss of the shifted logits; all arguments are (B, C)."""
        # in half precision a large shift would round away small logits
        raised = logits if logits.element_size() > 4 else logits.float()
        return self.loss(raised + self.shift, targets, coefficients)


class LabelSmoothed(nn.Module):
    """Replace targets y by y (1 - eps) + eps / 2; unknown ones remain unknown.

    Szegedy et al. 2016, section 7, for two outcomes. Raises UserError if eps is outside [0, 1).
    """

    def __init__(self, loss: nn.Module, eps: float) -> None:
        super().__init__()
        require(0 <= eps < 1, "label_smooth", "lie in [0, 1)", eps)
        self.loss, self.eps = loss, eps

    def forward(
        self, logits: Tensor, targets: Tensor, coefficients: Coefficients | None = None
    ) -> Tensor:
        """Wrapped loss of the smoothed targets and coefficients; all arguments are (B, C)."""
        precise = targets if targets.element_size() > 4 else targets.float()
        if coefficients is not None:
            moved = self.eps / 2 * (coefficients[0] + coefficients[1])
            presence, absence = (one * (1 - self.eps) + moved for one in coefficients)
            coefficients = presence, absence
        return self.loss(logits, precise * (1 - self.eps) + self.eps / 2, coefficients)


class DeferredReweighting(nn.Module):
    """Multiply the terms of positives by class weights w from `first_epoch` on: y w L(1).

    Cao et al. 2019, algorithm 1. Weights by the effective number of `positives` (C,), beta .9999;
    the divisor of the mean is unchanged. Raises UserError if `first_epoch` is below 1.
    """

    weight: Tensor

    def __init__(self, loss: nn.Module, positives: Tensor, first_epoch: int) -> None:
        super().__init__()
        require(first_epoch >= 1, "drw_epoch", "be at least 1", first_epoch)
        self.loss, self.first_epoch = loss, first_epoch
        self.active = False
        self.register_buffer("weight", effective_number_weights(positives, 0.9999).float())

    def set_epoch(self, epoch: int) -> None:
        """Set the current epoch, from 1."""
        self.active = epoch >= self.first_epoch

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Wrapped loss, re-weighted from `first_epoch` on; logits and targets are (B, C)."""
        if not self.active:
            return self.loss(logits, targets)
        presence = split_known(logits, targets)[1]
        return self.loss(logits, targets, (self.weight * presence, 1 - presence))
