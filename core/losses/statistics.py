"""What losses know of their classes: prevalence log-odds, and the mean over known labels."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def prevalence_log_odds(positives: ArrayLike | Tensor, images: ArrayLike | Tensor) -> Tensor:
    """log(f / (1 - f)) of each class's prevalence f = positives / known labels, float64 (C,).

    `positives` (C,) counts positives, `images` is the number of images or of known labels (C,).
    Positives are clipped to [1/2, known - 1/2], so that a class without any (or with nothing else)
    has a finite prior.
    """
    counts = torch.as_tensor(positives).double()
    known = torch.as_tensor(images).double().clamp(min=1)
    clipped = torch.minimum(counts.clamp(min=0.5), known - 0.5)
    return torch.log(clipped) - torch.log(known - clipped)


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


def mean_of_known(entries: Tensor, known: Tensor) -> Tensor:
    """Mean of `entries` (B, C) where `known`; 0 with zero gradient where nothing is."""
    return torch.where(known, entries, 0).sum() / known.sum().clamp(min=1)
