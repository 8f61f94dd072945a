"""Average precision, AUROC and F1 from true and false positives at each distinct score."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Curve:
    """Counts at the G steps of a ranking: the distinct scores of positives.

    thresholds: (G,), distinct scores of positives, descending.
    hits: (G,), positives of exactly this step.
    false_positives: (G,), negatives at or above this step.
    false_positives_above: (G,), negatives strictly above this step.
    negatives: number of all negatives.
    """

    thresholds: FloatArray
    hits: FloatArray
    false_positives: FloatArray
    false_positives_above: FloatArray
    negatives: int

    @classmethod
    def of(cls, positives: FloatArray, negatives: FloatArray) -> "Curve":
        """Curve from the scores of positives (P,) and negatives (Q,)."""
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
        """Number of positives."""
        return float(self.hits.sum())

    def scores(self) -> FloatArray:
        """Step-wise AP and AUROC, (2,); NaN without positives or negatives.

        AP is the sum of precision times recall increments, without interpolation, as in
        scikit-learn: linear interpolation of a precision-recall curve is too optimistic (Davis &
        Goadrich 2006). AUROC is the Mann-Whitney statistic (Hanley & McNeil 1982); ties count half.
        """
        pairs = self.positives * self.negatives
        if not pairs:
            return np.full(2, np.nan)
        true_positives = self.true_positives
        precision = true_positives / (true_positives + self.false_positives)
        # a positive ranks above the negatives below its step, and half of those tied with it
        lost = self.hits @ (self.false_positives + self.false_positives_above) / 2
        return np.array([precision @ self.hits / self.positives, 1 - lost / pairs])

    def f1(self) -> FloatArray:
        """F1 with each step as threshold, (G,)."""
        called = self.true_positives + self.false_positives
        return 2 * self.true_positives / np.maximum(called + self.positives, 1)


def divide_known(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient of arrays of one shape, NaN without a warning where the denominator is zero."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean_of_known(values: FloatArray) -> FloatArray:
    """Mean along the last axis without NaN; NaN without a warning if there are no values.

    (..., N) to (...); (N,) to (1,).
    """
    known = ~np.isnan(values)
    total = np.atleast_1d(np.where(known, values, 0).sum(axis=-1))
    return divide_known(total, np.atleast_1d(known.sum(axis=-1)).astype(float))


def column_mean(values: pd.Series) -> float:
    """Mean of a column without NaN; NaN without a warning if there are no values."""
    return float(mean_of_known(values.to_numpy(dtype=float))[0])
