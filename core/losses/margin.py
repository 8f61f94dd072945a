"""Label-distribution-aware margin loss: wider margins for rarer classes."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from core.losses.statistics import EntryLoss, require


class LabelDistributionAware(EntryLoss):
    """BCE(s (z - y m_c), y) with m_c proportional to n_c^(-1/4) and at most `max_margin`.

    Cao et al. 2019, eq. 13, for binary labels; positives n: (C,). The paper's scale s of 30 is for
    cosine logits. The rarest class with positives has `max_margin`, and so have classes without
    positives; a sum of soft ones below 1 counts as 1. Raises UserError if `max_margin` is outside
    [0, 1) or `scale` is not above 0.
    """

    margins: Tensor

    def __init__(self, positives: Tensor, max_margin: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        require(0 <= max_margin < 1, "max_margin", "lie in [0, 1)", max_margin)
        require(0 < scale < math.inf, "scale", "be above 0 and finite", scale)
        counts = positives.double()
        counts = torch.where(counts > 0, counts.clamp(min=1), torch.inf)
        rarest = counts.min()
        margins = torch.where(counts.isinf(), 1, (rarest / counts) ** 0.25) * max_margin
        self.scale = scale
        self.register_buffer("margins", margins.float())

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        positive = -logsigmoid(self.scale * (logits - self.margins))
        return positive, -logsigmoid(-self.scale * logits)
