"""Class statistics, checks of options, and the base of losses of single entries."""

from typing import TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from core.errors import UserError


def require(holds: bool, option: str, rule: str, value: object) -> None:
    """Raise UserError, "`option` must `rule`, not `value`", unless `holds`."""
    if not holds:
        raise UserError(f"{option} must {rule}, not {value}")


def prevalence_log_odds(positives: ArrayLike | Tensor, images: ArrayLike | Tensor) -> Tensor:
    """Log-odds log(f / (1 - f)) of the prevalence f = positives / known labels, float64 (C,).

    `images` is the number of images, or of known labels (C,). Positives are clipped to [1/2, known
    - 1/2], so that a class without positives or negatives has a finite prior.
    """
    counts = torch.as_tensor(positives).double()
    known = torch.as_tensor(images).double().clamp(min=1)
    clipped = torch.minimum(counts.clamp(min=0.5), known - 0.5)
    return torch.log(clipped) - torch.log(known - clipped)


def effective_number_weights(positives: ArrayLike | Tensor, beta: float) -> Tensor:
    """Class weights (1 - beta) / (1 - beta^n) for n positives, float64 (C,).

    Cui et al. 2019, eq. 2 and 4. Scaled to mean 1 over the classes with positives; a class without
    positives has weight 1, and a sum of soft ones below 1 counts as 1. Raises UserError if beta is
    outside [0, 1).
    """
    require(0 <= beta < 1, "beta", "lie in [0, 1)", beta)
    counts = torch.as_tensor(positives).double()
    present = counts > 0
    # by logarithms: beta^n would lose its difference from 1 to rounding
    log_beta = torch.log1p(torch.tensor(beta - 1, dtype=torch.float64))
    weights = (1 - beta) / -torch.expm1(counts.clamp(min=1) * log_beta)
    mean = torch.where(present, weights, 0).sum() / present.sum().clamp(min=1)
    return torch.where(present, weights / mean, 1)


def split_known(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and targets in float32 or float64, unknown targets as 0, and the mask of known ones.

    All (B, C). Half precision becomes float32; float64 is unchanged. Targets may be bool, integer
    or floating, NaN for unknown. Raises ValueError if the shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    targets = targets.to(dtype)
    known = ~torch.isnan(targets)
    return logits.to(dtype), torch.where(known, targets, 0), known


Coefficients: TypeAlias = tuple[Tensor, Tensor]
"""Factors (B, C) of the positive and the negative terms; y and 1 - y for targets y by default."""


class EntryLoss(nn.Module):
    """Base of losses that are a mean over entries y L(1) + (1 - y) L(0), for hard and soft y."""

    def terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """L(1) and L(0) of each entry, (B, C), for floating logits; unknown targets are 0."""
        raise NotImplementedError

    def forward(
        self, logits: Tensor, targets: Tensor, coefficients: Coefficients | None = None
    ) -> Tensor:
        """Scalar mean over the known entries of logits and targets (B, C); 0 without any.

        The divisor is their number, for any `coefficients`. Raises ValueError if the shapes of
        logits and targets differ.
        """
        logits, targets, known = split_known(logits, targets)
        positive, negative = self.terms(logits, targets)
        presence, absence = (targets, 1 - targets) if coefficients is None else coefficients
        entries = presence * positive + absence * negative
        return torch.where(known, entries, 0).sum() / known.sum().clamp(min=1)
