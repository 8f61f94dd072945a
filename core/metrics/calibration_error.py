"""Calibration errors: probabilities against observed fractions of positives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from core.metrics.ap_auroc import FloatArray, IntArray, divide_known
from core.metrics.influence import MODEL_COUNTS, missing_variance

CALIBRATION_BINS = 15
# least number of patients with a positive label for a bias-corrected calibration error
LEAST_PATIENTS = 20


def calibration_bins(targets: FloatArray, probabilities: FloatArray) -> dict[str, NDArray[Any]]:
    """Known labels in 15 equal-width bins: count, confidence and observed, (15,) each.

    targets: 1, 0 and NaN (unknown), of any shape, and probabilities in [0, 1] of the same shape.
    confidence is the mean probability of a bin, observed its fraction of positives; both are NaN
    for an empty bin. A probability on an edge belongs to the upper bin, 1 to the last one.
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

    Compares the probability of the positive label with the fraction of positives. targets (1, 0 and
    NaN for unknown) and probabilities have the same shape, any.
    """
    table = calibration_bins(targets, probabilities)
    total = table["count"].sum()
    gaps = np.abs(table["observed"] - table["confidence"]) * table["count"]
    return float(np.nansum(gaps) / total) if total else float("nan")


def calibration_errors(
    labels: FloatArray, probabilities: FloatArray, clusters: IntArray
) -> dict[str, tuple[float, float, float]]:
    """RMSCE over classes and RMSCE_flat of (N, C) values: value and bounds, see `Reliability`.

    The mean over classes of squared errors, and that of all labels as one class. NaN for too few
    patients. clusters: (N,), index of the patient of each image.
    """
    columns = labels.shape[1]
    flat = labels.reshape(-1, 1), probabilities.reshape(-1, 1), np.repeat(clusters, columns)
    kinds = {
        "RMSCE": Reliability.of(labels, probabilities, clusters).mean(),
        "RMSCE_flat": Reliability.of(*flat),
    }
    found = {}
    for name, one in kinds.items():
        (value,), ((low,), (high,)) = one.roots()
        found[name] = float(value), float(low), float(high)
    return found


@dataclass(frozen=True)
class Reliability:
    """Bias-corrected squared calibration errors of C classes, and the influence of K patients.

    values: (C,), means over bins, weighted by their size, of the squared gap between confidence and
        observed fraction minus its variance: unbiased, and possibly below 0 if the true error is
        near 0 (Bröcker 2012; Kumar 2019). NaN without a label.
    moves: (K, C), decrease of a value without the patient.
    chance: (C,), variance of a value for a true error of 0.
    gaps: (C,), the value without the bias correction.
    patients: (C,), number of patients with a positive label.
    """

    values: FloatArray
    moves: FloatArray
    chance: FloatArray
    gaps: FloatArray
    patients: IntArray

    @classmethod
    def of(
        cls, targets: FloatArray, probabilities: FloatArray, clusters: IntArray
    ) -> "Reliability":
        """Compute from labels (N, C; NaN: unknown), probabilities (N, C) and patients (N,)."""
        number = int(clusters.max()) + 1
        pairs = zip(targets.T, probabilities.T, strict=True)
        found = [_reliability(*pair, clusters, number) for pair in pairs]
        values, moves, chance, gaps, patients = zip(*found, strict=True)
        numbers = (np.array(one) for one in (chance, gaps, patients))
        return cls(np.array(values), np.stack(moves, axis=-1), *numbers)

    def mean(self) -> "Reliability":
        """Mean over the classes with a label."""
        known = ~np.isnan(self.values)
        count = max(known.sum(), 1)
        return Reliability(
            values=np.array([self.values[known].mean() if known.any() else np.nan]),
            moves=self.moves[:, known].sum(axis=1, keepdims=True) / count,
            chance=np.array([self.chance[known].sum() / count**2]),
            gaps=np.array([self.gaps[known].sum() / count]),
            patients=np.array([self.patients.max(initial=0)]),
        )

    def roots(self) -> tuple[FloatArray, FloatArray]:
        """Root mean squared calibration errors (C,) and their 95 % intervals (2, C).

        NaN for fewer than LEAST_PATIENTS positive patients. The interval has all true squared
        errors that a test does not reject, as the variance grows with the true error. Degrees of
        freedom are the effective number of patients that contribute to the variance.
        """
        seen, fourth = (self.moves**2).sum(axis=0), (self.moves**4).sum(axis=0)
        freedom = np.divide(2 * seen**2, fourth, out=np.full(fourth.shape, 1e9), where=fourth > 0)
        t = student.ppf(0.975, np.maximum(freedom, 1))
        # variance = slope * true error + chance
        slope = np.divide(seen, self.gaps, out=np.zeros_like(seen), where=self.gaps > 0)
        middle = self.values + t**2 * slope / 2
        square = middle**2 - self.values**2 + t**2 * self.chance
        width = np.sqrt(np.maximum(square, 0))
        roots = np.sqrt(np.clip([self.values, middle - width, middle + width], 0, 1))
        roots = np.where(self.patients >= LEAST_PATIENTS, roots, np.nan)
        return roots[0], roots[1:]


def _reliability(
    targets: FloatArray, probabilities: FloatArray, clusters: IntArray, number: int
) -> tuple[float, FloatArray, float, float, int]:
    """Value, moves (K,), chance, gaps and patients of one class; see `Reliability`."""
    known = ~np.isnan(targets)
    y, p, own = targets[known], probabilities[known], clusters[known]
    if not len(y):
        return float("nan"), np.zeros(number), 0.0, 0.0, 0
    cells = own * CALIBRATION_BINS + _bin_of(p)
    size = number * CALIBRATION_BINS
    images = np.bincount(cells, minlength=size).reshape(number, -1)
    gaps = np.bincount(cells, weights=y - p, minlength=size).reshape(number, -1)
    count, patients = images.sum(axis=0), np.count_nonzero(images, axis=0)
    sums = np.bincount(_bin_of(p), weights=p, minlength=CALIBRATION_BINS)
    confidence = sums / np.maximum(count, 1)
    gap = gaps.sum(axis=0) / np.maximum(count, 1)
    moves = (gaps - gap * images) / np.maximum(count, 1)
    variance = (moves**2).sum(axis=0) * patients / np.maximum(patients - 1, 1)
    # a rare label of a few patients, or with many similar images, shows too little variance
    equal = divide_known(count**2, (images**2).sum(axis=0))
    unseen = missing_variance(confidence * (1 - confidence) / equal, variance, equal, MODEL_COUNTS)
    variance = variance + np.nan_to_num(unseen)
    # the gap of a single patient may be due to chance only
    variance = np.where(patients == 1, gap**2, variance)
    share = count / len(y)
    excess = gap**2 - variance
    value = float(share @ excess)
    others = (images @ excess - images.sum(axis=1) * value) / len(y)
    chance, positive = float(2 * share**2 @ variance**2), len(np.unique(own[y == 1]))
    return value, moves @ (2 * share * gap) + others, chance, float(share @ gap**2), positive


def _bin_of(probabilities: FloatArray) -> IntArray:
    """Bin of each probability, for any shape."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
