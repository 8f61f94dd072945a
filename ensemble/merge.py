"""Merging the predictions of several models."""

from collections.abc import Sequence

import numpy as np

from core.errors import UserError


def model_shares(weights: Sequence[float], models: int) -> np.ndarray:
    """The weights of `models` as parts of 1, (M,); equal ones where none are given.

    Raises UserError where they are negative, not finite, all 0 or not one a model.
    """
    if not weights:
        return np.full(models, 1 / models)
    if len(weights) != models:
        raise UserError(
            f"{len(weights)} weights do not fit {models} checkpoints: give one for each"
        )
    numbers = np.asarray(weights, dtype=float)
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not numbers.any():
        raise UserError(f"weights must be at least 0 and one of them above it, not {list(weights)}")
    numbers = numbers / numbers.max()
    return numbers / numbers.sum()


def weighted_mean(predictions: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Mean (N, C) of the models' probabilities (N, C), of which each has its share."""
    return np.tensordot(shares, np.stack(predictions), axes=1)
