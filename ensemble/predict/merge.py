"""Merging of probabilities: over augmented copies, models, and images of a study."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata
from torch import Tensor

from core.errors import UserError
from ensemble.predict.calibration import SMALLEST, logit

Probabilities = NDArray[np.float64]


def merge_copies(probabilities: Tensor, mode: str) -> Tensor:
    """Merge probabilities (V, B, C) of V augmented copies into (B, C).

    `mode` is mean, max, median, gmean or logit_mean; the last two clip to [1e-6, 1 - 1e-6] first.
    """
    if mode == "mean":
        return probabilities.mean(dim=0)
    if mode == "max":
        return probabilities.amax(dim=0)
    if mode == "median":
        return torch.quantile(probabilities, 0.5, dim=0)
    clipped = probabilities.clamp(SMALLEST, 1 - SMALLEST)
    if mode == "gmean":
        return clipped.log().mean(dim=0).exp()
    assert mode == "logit_mean"
    return clipped.logit().mean(dim=0).sigmoid()


def model_shares(weights: Sequence[float], models: int) -> np.ndarray:
    """Weights of M `models` scaled to a sum of 1, (M,); equal if none are given.

    Raises UserError if they are negative, not finite, all 0 or not one a model.
    """
    numbers = np.asarray(weights or [1.0] * models, dtype=float)
    if len(numbers) != models:
        raise UserError(f"{len(weights)} --weights for {models} checkpoints: give one for each")
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not numbers.any():
        raise UserError(f"weights must be at least 0 and not all 0, not {list(weights)}")
    numbers = numbers / numbers.max()
    return numbers / numbers.sum()


def merge_models(probabilities: Probabilities, shares: np.ndarray, mode: str) -> Probabilities:
    """Merge probabilities (M, N, C) of M models with weights `shares` (M,) into (N, C).

    `mode` is weighted_mean, logit_mean, gmean, rank_mean (of `ranks` among the N images), or
    median and max, which ignore shares. NaN (a model lacks the class) is left out.
    """
    if mode == "rank_mean":
        return _mean(ranks(probabilities, axis=1), shares)
    if mode == "max":
        return np.nanmax(probabilities, axis=0)
    if mode == "median":
        return np.nanmedian(probabilities, axis=0)
    if mode == "weighted_mean":
        return _mean(probabilities, shares)
    if mode == "gmean":
        return np.exp(_mean(np.log(np.clip(probabilities, SMALLEST, 1 - SMALLEST)), shares))
    assert mode == "logit_mean"
    return expit(_mean(logit(probabilities), shares))


def _mean(values: Probabilities, shares: np.ndarray) -> Probabilities:
    """Weighted mean over the models that have a class."""
    known = ~np.isnan(values)
    total = np.tensordot(shares, np.where(known, values, 0), axes=1)
    return total / np.tensordot(shares, known, axes=1)


def ranks(probabilities: Probabilities, axis: int = 0) -> Probabilities:
    """Ranks along the `axis` of N images, divided by N, of the same shape.

    Ties get their mean, NaN stays NaN.
    """
    return rankdata(probabilities, axis=axis) / probabilities.shape[axis]


def merge_studies(
    probabilities: Probabilities, studies: np.ndarray, groups: np.ndarray
) -> Probabilities:
    """Mean probabilities (S, C) of studies: within each group of views, then over the groups.

    probabilities: (N, C); studies: (N,) int from 0 to S - 1; groups: (N,) int.
    """
    within = pd.DataFrame(probabilities).groupby([studies, groups]).mean()
    return within.groupby(level=0).mean().to_numpy()
