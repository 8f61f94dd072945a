"""How far probabilities are from observed shares of positives."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metrics.ap_auroc import FloatArray

CALIBRATION_BINS = 15


def calibration_bins(targets: FloatArray, probabilities: FloatArray) -> dict[str, NDArray[Any]]:
    """Known labels of any shape in 15 equal-width bins: count, confidence and observed of each.

    confidence is the mean probability of a bin, observed its share of positives, both NaN where
    the bin is empty. A probability on an edge belongs to the bin above it, 1 to the last.
    """
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    index = np.minimum((p * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
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
