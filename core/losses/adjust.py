"""Logit adjustment around any loss."""

import math

from torch import Tensor, nn

from core.errors import UserError
from core.losses.statistics import prevalence_log_odds


class LogitAdjusted(nn.Module):
    """Adds tau log(f / (1-f)) to the logits before `loss` (Menon et al. 2021, eq. 10, binary form).

    A device for training: at inference the plain logits are used.
    """

    shift: Tensor

    def __init__(self, loss: nn.Module, positives: Tensor, images: Tensor, tau: float) -> None:
        super().__init__()
        if not math.isfinite(tau):
            raise UserError(f"logit_adjust must be a finite number, not {tau}")
        self.loss = loss
        self.register_buffer("shift", (tau * prevalence_log_odds(positives, images)).float())

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The wrapped loss of the shifted logits; logits and targets are (B, C)."""
        # a half-typed sum would round away small logits beside a large shift
        raised = logits if logits.element_size() > 4 else logits.float()
        return self.loss(raised + self.shift, targets)
