"""AP, AUROC and F1 from counts along the steps of a ranking."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Curve:
    """Counts along the G steps of a ranking: precision-recall and ROC curve turn nowhere else."""

    thresholds: FloatArray  # (G,) distinct scores of positives, descending
    hits: FloatArray  # (G,) positives of exactly this step
    false_positives: FloatArray  # (G,) negatives at or above this step
    false_positives_above: FloatArray  # (G,) negatives strictly above this step
    negatives: int

    @classmethod
    def of(cls, positives: FloatArray, negatives: FloatArray) -> "Curve":
        """The curve of the scores of positives (P,) and of negatives (Q,)."""
        steps, counts = np.unique(positives, return_counts=True)
        steps, ordered, count = steps[::-1], np.sort(negatives), len(negatives)
        below, not_above = (np.searchsorted(ordered, steps, side) for side in ("left", "right"))
        false_positives, above = (count - side.astype(float) for side in (below, not_above))
        return cls(steps, counts[::-1].astype(float), false_positives, above, count)

    @property
    def true_positives(self) -> FloatArray:
        """Positives at or above each step, (G,)."""
        return np.cumsum(self.hits)

    @property
    def positives(self) -> float:
        """Their number."""
        return float(self.hits.sum())

    def scores(self) -> FloatArray:
        """Step-wise AP and AUROC, (2,); NaN without positives or negatives.

        AP is the sum of precision times the recall gained, without interpolation, as in
        scikit-learn: straight lines between the points of a precision-recall curve are too
        optimistic (Davis & Goadrich 2006). AUROC is the Mann-Whitney statistic (Hanley & McNeil
        1982); ties count half.
        """
        pairs = self.positives * self.negatives
        if not pairs:
            return np.full(2, np.nan)
        true_positives = self.true_positives
        precision = true_positives / (true_positives + self.false_positives)
        # a positive beats the negatives below its step and half of those tied with it
        lost = self.hits @ (self.false_positives + self.false_positives_above) / 2
        return np.array([precision @ self.hits / self.positives, 1 - lost / pairs])

    def f1(self) -> FloatArray:
        """F1 when everything at or above a step is called positive, (G,)."""
        called = self.true_positives + self.false_positives
        return 2 * self.true_positives / np.maximum(called + self.positives, 1)


def divide_known(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient with NaN, and no warning, where the denominator is zero."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean_of_known(values: FloatArray) -> FloatArray:
    """Mean along the last axis without NaN, and NaN (no warning) where nothing is known."""
    known = ~np.isnan(values)
    total = np.atleast_1d(np.where(known, values, 0).sum(axis=-1))
    return divide_known(total, np.atleast_1d(known.sum(axis=-1)).astype(float))


def column_mean(values: pd.Series) -> float:
    """Mean of a column without NaN, NaN (no warning) where nothing is known."""
    return float(mean_of_known(values.to_numpy(dtype=float))[0])
