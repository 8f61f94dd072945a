"""What losses know of their classes and options, and what those of single entries share."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from core.errors import UserError


def require(holds: bool, option: str, rule: str, value: object) -> None:
    """Raise UserError, "`option` must `rule`, not `value`", unless `holds`."""
    if not holds:
        raise UserError(f"{option} must {rule}, not {value}")


def prevalence_log_odds(positives: ArrayLike | Tensor, images: ArrayLike | Tensor) -> Tensor:
    """log(f / (1 - f)) of each class's f = positives / known labels, float64 (C,).

    `images` is their number, or that of known labels (C,). Positives are clipped to [1/2, known -
    1/2], so that a class of one kind has a finite prior.
    """
    counts = torch.as_tensor(positives).double()
    known = torch.as_tensor(images).double().clamp(min=1)
    clipped = torch.minimum(counts.clamp(min=0.5), known - 0.5)
    return torch.log(clipped) - torch.log(known - clipped)


def effective_number_weights(positives: ArrayLike | Tensor, beta: float) -> Tensor:
    """(1 - beta) / (1 - beta^n) of each class with n positives, float64 (C,).

    Cui et al. 2019, eq. 2 and 4. Scaled to mean 1 over the classes that have positives; a class
    without any gets weight 1. Raises UserError where beta lies outside [0, 1).
    """
    require(0 <= beta < 1, "beta", "lie in [0, 1)", beta)
    counts = torch.as_tensor(positives).double()
    present = counts > 0
    # beta - 1 is exact, and beta^n would round away its distance to 1
    log_beta = torch.log1p(torch.tensor(beta - 1, dtype=torch.float64))
    weights = (1 - beta) / -torch.expm1(torch.where(present, counts, 1) * log_beta)
    mean = torch.where(present, weights, 0).sum() / present.sum().clamp(min=1)
    return torch.where(present, weights / mean, 1)


def split_known(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and targets in float32 or float64, unknown targets as 0, and the mask of known ones.

    All (B, C). Half types are raised to float32; float64 stays. Targets may be bool, integer or
    floating, NaN where unknown. Raises ValueError where the shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    targets = targets.to(dtype)
    known = ~torch.isnan(targets)
    return logits.to(dtype), torch.where(known, targets, 0), known


class EntryLoss(nn.Module):
    """A loss whose entries stand alone."""

    def entries(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What each entry costs, (B, C); both are floating, and unknown targets 0."""
        raise NotImplementedError

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar mean over known entries of logits and targets, times `weights`; all (B, C).

        Divided by the number of known entries, weighted or not; 0 where there are none.
        """
        logits, targets, known = split_known(logits, targets)
        entries = self.entries(logits, targets)
        if weights is not None:
            entries = weights * entries
        return torch.where(known, entries, 0).sum() / known.sum().clamp(min=1)
