"""AP and AUROC from weighted counts: each class is ranked once, each resample only counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Curve:
    """Weighted counts along the steps of a ranking, for R resamples at once."""

    thresholds: FloatArray  # (G,) distinct scores of positives, descending
    hits: FloatArray  # (R, G) positives of exactly this step
    false_positives: FloatArray  # (R, G) negatives at or above this step
    false_positives_above: FloatArray  # (R, G) negatives strictly above this step
    negatives: FloatArray  # (R,)

    @classmethod
    def of(cls, positives: FloatArray, negatives: FloatArray) -> "Curve":
        """The curve of the scores of positives (P,) and of negatives (Q,), each counted once."""
        steps, counts = np.unique(positives, return_counts=True)
        steps, ordered = steps[::-1], np.sort(negatives)
        below, not_above = (np.searchsorted(ordered, steps, side) for side in ("left", "right"))
        count = np.array([len(negatives)], dtype=float)
        hits = counts[None, ::-1].astype(float)
        return cls(steps, hits, count - below[None], count - not_above[None], count)

    @property
    def true_positives(self) -> FloatArray:
        """Positives at or above each step, (R, G)."""
        return np.cumsum(self.hits, axis=1)

    @property
    def positives(self) -> FloatArray:
        """(R,)"""
        return self.hits.sum(axis=1)

    def scores(self) -> FloatArray:
        """Step-wise AP and AUROC, (2, R); NaN where positives or negatives are missing.

        AP is the sum of precision times the recall gained, without interpolation, as in
        scikit-learn: straight lines between the points of a precision-recall curve are too
        optimistic (Davis & Goadrich 2006). AUROC is the Mann-Whitney statistic (Hanley & McNeil
        1982); ties count half.
        """
        true_positives, positives = self.true_positives, self.positives
        precision = true_positives / np.maximum(true_positives + self.false_positives, 1)
        # without negatives every ranking would have an AP of 1
        both = np.where(self.negatives > 0, positives, 0)
        ap = divide_known((precision * self.hits).sum(axis=1), both)
        # a positive beats the negatives below its step and half of those tied with it
        lost = (self.hits * (self.false_positives + self.false_positives_above)).sum(axis=1) / 2
        pairs = positives * self.negatives
        return np.stack([ap, divide_known(pairs - lost, pairs)])

    def f1(self) -> FloatArray:
        """F1 when everything at or above a step is called positive, (R, G)."""
        called = self.true_positives + self.false_positives
        return 2 * self.true_positives / np.maximum(called + self.positives[:, None], 1)


@dataclass(frozen=True)
class Ranking:
    """Place of each image among the steps of one class's precision-recall and ROC curve.

    Both curves can only turn at a score that a positive carries, so the G distinct scores of
    positives, highest first, are the steps. An image counts in one of 3G + 2 bins: 3g is a
    negative above step g and below the one before it, 3g + 1 a negative tied with step g,
    3g + 2 a positive of step g, 3G a negative below all positives, 3G + 1 an unknown label.
    Weighted counts of these bins are all that AP and AUROC need, ties included.
    """

    thresholds: FloatArray  # (G,) descending
    bins: IntArray  # (N,)

    @classmethod
    def of(cls, targets: NDArray[np.floating], scores: FloatArray) -> "Ranking":
        """Rank (N,) scores against (N,) targets of 1, 0 and NaN."""
        steps = np.unique(scores[targets == 1])
        count = len(steps)
        above = np.searchsorted(steps, scores)  # steps strictly below the image
        tied = np.append(steps, np.nan)[above] == scores
        bins = 3 * (count - above) - 2 * tied + (targets == 1)
        bins[np.isnan(targets)] = 3 * count + 1
        return cls(thresholds=steps[::-1], bins=bins.astype(np.intp))

    def curve(self, weights: FloatArray) -> Curve:
        """The curve of each resample; weights: (R, N), how often it drew each image.

        The counts are sums of whole numbers, which are exact in any order.
        """
        size, images = 3 * len(self.thresholds) + 2, len(self.bins)
        order, counts = np.argsort(self.bins), np.bincount(self.bins, minlength=size)
        ends = np.append(0, counts.cumsum())
        members = csr_array((np.ones(images), order, ends), shape=(size, images))
        drawn = np.ascontiguousarray((members @ weights.T).T)
        between, tied, hits = drawn[:, :-2:3], drawn[:, 1:-2:3], drawn[:, 2:-2:3]
        false_positives = np.cumsum(between + tied, axis=1)
        return Curve(
            self.thresholds,
            hits,
            false_positives,
            false_positives - tied,
            negatives=between.sum(axis=1) + tied.sum(axis=1) + drawn[:, -2],
        )


def divide_known(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient with NaN, and no warning, where the denominator is zero."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
