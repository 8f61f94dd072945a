"""How far probabilities are from observed shares of positives."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.metrics.ap_auroc import FloatArray

CALIBRATION_BINS = 15


def calibration_bins(
    targets: FloatArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS
) -> pd.DataFrame:
    """Known labels of any shape in equal-width bins: columns count, confidence, observed.

    confidence is the mean probability of a bin, observed its share of positives, both NaN where
    the bin is empty. A probability on an edge belongs to the bin above it, 1 to the last.
    """
    return pd.DataFrame(_bins(targets, probabilities, bins))


def expected_calibration_error(targets: FloatArray, probabilities: FloatArray) -> float:
    """L1 expected calibration error over 15 equal-width bins (Naeini 2015), NaN without labels.

    The probability of the positive label is held against the share of positives, for arrays of
    any shape.
    """
    table = _bins(targets, probabilities, CALIBRATION_BINS)
    total = table["count"].sum()
    gaps = np.abs(table["observed"] - table["confidence"]) * table["count"]
    return float(np.nansum(gaps) / total) if total else float("nan")


def _bins(targets: FloatArray, probabilities: FloatArray, bins: int) -> dict[str, NDArray[Any]]:
    """The columns of `calibration_bins`; thousands of classes would wait for as many tables."""
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    index = np.minimum((p * bins).astype(np.intp), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return {
        "count": count,
        "confidence": np.bincount(index, weights=p, minlength=bins) / filled,
        "observed": np.bincount(index, weights=y, minlength=bins) / filled,
    }
