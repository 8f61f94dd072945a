"""How far probabilities are from observed shares of positives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from core.metrics.ap_auroc import FloatArray, IntArray

CALIBRATION_BINS = 15


def calibration_bins(targets: FloatArray, probabilities: FloatArray) -> dict[str, NDArray[Any]]:
    """Known labels of any shape in 15 equal-width bins: count, confidence and observed of each.

    confidence is the mean probability of a bin, observed its share of positives, both NaN where
    the bin is empty. A probability on an edge belongs to the bin above it, 1 to the last.
    """
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    index = _bin_of(p)
    count = np.bincount(index, minlength=CALIBRATION_BINS)
    filled = np.where(count > 0, count, np.nan)
    return {
        "count": count,
        "confidence": np.bincount(index, weights=p, minlength=CALIBRATION_BINS) / filled,
        "observed": np.bincount(index, weights=y, minlength=CALIBRATION_BINS) / filled,
    }


def expected_calibration_error(targets: FloatArray, probabilities: FloatArray) -> float:
    """L1 expected calibration error over 15 equal-width bins (Naeini 2015), NaN without labels.

    The probability of the positive label is held against the share of positives, for arrays of
    any shape.
    """
    table = calibration_bins(targets, probabilities)
    total = table["count"].sum()
    gaps = np.abs(table["observed"] - table["confidence"]) * table["count"]
    return float(np.nansum(gaps) / total) if total else float("nan")


@dataclass(frozen=True)
class Reliability:
    """Squared calibration errors of C classes less what chance adds, and what K patients add.

    values: (C,), sums over bins of the squared gap between confidence and observed share less its
        variance, by the share of the bin: without bias, and below 0 by chance where the truth is
        near it (Bröcker 2012; Kumar 2019). NaN without a label.
    moves: (K, C), by how much a value falls without the patient.
    chance: (C,), variance of a value where the truth is 0.
    """

    values: FloatArray
    moves: FloatArray
    chance: FloatArray

    @classmethod
    def of(
        cls, targets: FloatArray, probabilities: FloatArray, clusters: IntArray
    ) -> "Reliability":
        """Of labels (N, C; NaN is unknown) and probabilities (N, C) of patients (N,)."""
        number = int(clusters.max()) + 1
        pairs = zip(targets.T, probabilities.T, strict=True)
        found = [_reliability(*pair, clusters, number) for pair in pairs]
        values, moves, chance = zip(*found, strict=True)
        return cls(np.array(values), np.stack(moves, axis=-1), np.array(chance))

    def mean(self) -> "Reliability":
        """The mean over the classes with a label."""
        known = ~np.isnan(self.values)
        count = max(known.sum(), 1)
        return Reliability(
            np.array([self.values[known].mean() if known.any() else np.nan]),
            self.moves[:, known].sum(axis=1, keepdims=True) / count,
            np.array([self.chance[known].sum() / count**2]),
        )

    def roots(self) -> tuple[FloatArray, FloatArray]:
        """Root mean squared calibration errors (C,) and their 95 % intervals (2, C).

        The intervals are t intervals of the squared errors, with as many degrees of freedom as
        patients share their variance.
        """
        seen, fourth = (self.moves**2).sum(axis=0), (self.moves**4).sum(axis=0)
        # the gaps of the sample, by which patients move it, hold their own chance
        variance = np.maximum(seen - self.chance, self.chance)
        freedom = np.divide(
            2 * seen**2, fourth, out=np.full(fourth.shape, np.inf), where=fourth > 0
        )
        width = student.ppf(0.975, np.maximum(freedom, 1)) * np.sqrt(variance)
        bounds = np.stack([self.values - width, self.values + width])
        return np.sqrt(np.maximum(self.values, 0)), np.sqrt(np.maximum(bounds, 0))


def _reliability(
    targets: FloatArray, probabilities: FloatArray, clusters: IntArray, number: int
) -> tuple[float, FloatArray, float]:
    """Value, moves (K,) and chance of one class, see `Reliability`."""
    known = ~np.isnan(targets)
    y, p, own = targets[known], probabilities[known], clusters[known]
    if not len(y):
        return float("nan"), np.zeros(number), 0.0
    cells = own * CALIBRATION_BINS + _bin_of(p)
    size = number * CALIBRATION_BINS
    images = np.bincount(cells, minlength=size).reshape(number, -1)
    gaps = np.bincount(cells, weights=y - p, minlength=size).reshape(number, -1)
    count, patients = images.sum(axis=0), np.count_nonzero(images, axis=0)
    gap = gaps.sum(axis=0) / np.maximum(count, 1)
    moves = (gaps - gap * images) / np.maximum(count, 1)
    variance = (moves**2).sum(axis=0) * patients / np.maximum(patients - 1, 1)
    # of a single patient nothing tells the gap from chance
    variance = np.where(patients == 1, gap**2, variance)
    share = count / len(y)
    excess = gap**2 - variance
    value = float(share @ excess)
    others = (images @ excess - images.sum(axis=1) * value) / len(y)
    return value, moves @ (2 * share * gap) + others, float(2 * (share**2) @ variance**2)


def _bin_of(probabilities: FloatArray) -> IntArray:
    """The bin of each probability, of any shape."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
