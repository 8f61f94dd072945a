"""Two-way loss: positives against negatives within each image, and within each class."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from core.losses.statistics import Coefficients, require, split_known


class TwoWay(nn.Module):
    """softplus(LSE_neg(z) + T LSE_pos(-z/T)), averaged over images, plus the same over classes.

    Kobayashi 2023, eq. 8 to 11. LSE is the log-sum-exp over the negatives or positives of an image,
    and of a class in the batch, so that the loss depends on the division into batches. Means are
    over images (classes) with a positive, a target of at least .5; those without a negative add 0.
    Soft targets y weight the sums: y among the positives, 1 - y among the negatives. Raises
    UserError if the temperature T is not above 0.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        require(0 < temperature < math.inf, "temperature", "be above 0 and finite", temperature)
        self.temperature = temperature

    def forward(
        self, logits: Tensor, targets: Tensor, coefficients: Coefficients | None = None
    ) -> Tensor:
        """Scalar loss of logits and targets (B, C).

        An image or class is weighted by the mean sum of `coefficients` over its positives. Raises
        ValueError if the shapes of logits and targets differ.
        """
        logits, targets, known = split_known(logits, targets)
        weights = None if coefficients is None else coefficients[0] + coefficients[1]
        images = self._along(1, logits, targets, known, weights)
        return images + self._along(0, logits, targets, known, weights)

    def _along(
        self, dim: int, logits: Tensor, targets: Tensor, known: Tensor, weights: Tensor | None
    ) -> Tensor:
        presence = torch.where(known, targets, 0)
        absence = torch.where(known, 1 - targets, 0)
        negatives = _log_sum_exp(logits, absence, dim)
        positives = _log_sum_exp(-logits / self.temperature, presence, dim)
        terms = -logsigmoid(-(negatives + self.temperature * positives))
        positive = presence >= 0.5
        terms = torch.where(positive.any(dim) & (absence > 0).any(dim), terms, 0)
        if weights is not None:
            terms = terms * (weights * positive).sum(dim) / positive.sum(dim).clamp(min=1)
        return terms.sum() / positive.any(dim).sum().clamp(min=1)


def _log_sum_exp(values: Tensor, weights: Tensor, dim: int) -> Tensor:
    """log sum(weights exp(values)) along `dim`; any finite number if all weights are 0."""
    present = weights > 0
    terms = torch.where(present, values + torch.log(torch.where(present, weights, 1)), -torch.inf)
    # the gradient of an empty sum would be NaN
    return torch.logsumexp(torch.where(present.any(dim, keepdim=True), terms, 0), dim)
