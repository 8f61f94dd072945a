"""AP and AUROC from weighted counts: each class is ranked once, each resample only counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Ranking:
    """Where each image stands among the steps of one class's precision-recall and ROC curve.

    Both curves can only turn at a score that a positive carries, so the G distinct scores of
    positives, highest first, are the steps. An image counts in one of 3G + 2 bins: 3g is a
    negative above step g and below the one before it, 3g + 1 a negative tied with step g,
    3g + 2 a positive of step g, 3G a negative below all positives, 3G + 1 an unknown label.
    Weighted counts of these bins are all that AP and AUROC need, ties included.
    """

    thresholds: FloatArray  # (G,) descending
    bins: IntArray  # (N,)

    @classmethod
    def of(cls, targets: FloatArray, scores: FloatArray) -> "Ranking":
        """Rank (N,) scores against (N,) targets of 1, 0 and NaN."""
        steps = np.unique(scores[targets == 1])
        count = len(steps)
        above = np.searchsorted(steps, scores)  # steps strictly below the image
        tied = np.zeros(len(scores), dtype=bool)
        inside = above < count
        tied[inside] = steps[above[inside]] == scores[inside]
        bins = 3 * (count - above)
        bins[tied] -= 2
        bins[targets == 1] += 1
        bins[np.isnan(targets)] = 3 * count + 1
        return cls(thresholds=steps[::-1], bins=bins.astype(np.intp))

    def count(self, weights: FloatArray | None = None) -> FloatArray:
        """Weighted number of images in each bin, (R, 3G + 1), unknown labels left out.

        weights: (R, N), how often each resample drew each image; None counts each image once.
        """
        size = 3 * len(self.thresholds) + 2
        images = len(self.bins)
        if weights is None:
            weights = np.ones((1, images))
        order, ends = np.argsort(self.bins), np.bincount(self.bins, minlength=size).cumsum()
        members = csr_array((np.ones(images), order, np.append(0, ends)), shape=(size, images))
        # whole numbers, whose sums are exact in any order
        return np.ascontiguousarray((members @ weights.T).T)[:, :-1]


@dataclass(frozen=True)
class Curve:
    """Weighted counts along the steps of a ranking, for R resamples at once."""

    hits: FloatArray  # (R, G) positives of exactly this step
    true_positives: FloatArray  # (R, G) positives at or above this step
    false_positives: FloatArray  # (R, G) negatives at or above this step
    false_positives_above: FloatArray  # (R, G) negatives strictly above this step
    positives: FloatArray  # (R,)
    negatives: FloatArray  # (R,)

    @classmethod
    def of(cls, counts: FloatArray) -> "Curve":
        """Accumulate what `Ranking.count` gave, (R, 3G + 1)."""
        between, tied, hits = counts[:, :-1:3], counts[:, 1::3], counts[:, 2::3]
        false_positives = np.cumsum(between + tied, axis=1)
        return cls(
            hits=hits,
            true_positives=np.cumsum(hits, axis=1),
            false_positives=false_positives,
            false_positives_above=false_positives - tied,
            positives=hits.sum(axis=1),
            negatives=between.sum(axis=1) + tied.sum(axis=1) + counts[:, -1],
        )

    def average_precision(self) -> FloatArray:
        """Step-wise AP, (R,): sum of precision times the recall gained.

        No interpolation, as in scikit-learn: straight lines between the points of a
        precision-recall curve are too optimistic (Davis & Goadrich 2006). NaN where positives or
        negatives are missing: without negatives every ranking would score 1.
        """
        called = self.true_positives + self.false_positives
        precision = self.true_positives / np.maximum(called, 1)
        both = np.where(self.negatives > 0, self.positives, 0)
        return divide_known((precision * self.hits).sum(axis=1), both)

    def auroc(self) -> FloatArray:
        """AUROC, (R,), as the Mann-Whitney statistic (Hanley & McNeil 1982); ties count half.

        NaN where positives or negatives are missing.
        """
        # a positive beats the negatives below its step and half of those tied with it
        lost = (self.hits * (self.false_positives + self.false_positives_above)).sum(axis=1) / 2
        pairs = self.positives * self.negatives
        return divide_known(pairs - lost, pairs)

    def f1(self) -> FloatArray:
        """F1 when everything at or above a step is called positive, (R, G)."""
        called = self.true_positives + self.false_positives
        return 2 * self.true_positives / np.maximum(called + self.positives[:, None], 1)


def divide_known(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient with NaN, and no warning, where the denominator is zero."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
