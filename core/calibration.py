"""How far probabilities are from observed shares of positives."""

import numpy as np
import pandas as pd

from core.bootstrap import FloatArray

CALIBRATION_BINS = 15


def calibration_bins(
    targets: FloatArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS
) -> pd.DataFrame:
    """Known labels of any shape in equal-width bins: columns count, confidence, observed.

    confidence is the mean probability of a bin, observed its share of positives, both NaN where
    the bin is empty. A probability on an edge belongs to the bin above it, 1 to the last.
    """
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    index = np.minimum((p * bins).astype(np.intp), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "count": count,
            "confidence": np.bincount(index, weights=p, minlength=bins) / filled,
            "observed": np.bincount(index, weights=y, minlength=bins) / filled,
        }
    )


def expected_calibration_error(targets: FloatArray, probabilities: FloatArray) -> float:
    """L1 expected calibration error over 15 equal-width bins (Naeini 2015), NaN without labels.

    The probability of the positive label is held against the share of positives, for arrays of
    any shape.
    """
    table = calibration_bins(targets, probabilities)
    total = table["count"].sum()
    gaps = (table["observed"] - table["confidence"]).abs() * table["count"]
    return float(gaps.sum() / total) if total else float("nan")
