"""Operating points: sensitivity, specificity and positive predictive value at a threshold."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from core.errors import UserError
from core.metrics.ap_auroc import Curve, FloatArray, Ranking
from core.metrics.bootstrap import Patients, cluster_indices, percentile_interval, resampled_weights
from ensemble.predict.calibration import read_calibration

POINTS = ("sensitivity", "specificity", "ppv")
# weights (R, N) -> thresholds (R, C) and POINTS (3, R, C) of R resamples
Measure = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def read_thresholds(given: str, class_names: Sequence[str], *, gated: bool) -> FloatArray:
    """What --thresholds says of each class, (C,): one number, or what `ensemble.calibrate` found.

    NaN where the calibration has no threshold, for want of positives or negatives. `gated` takes
    its thresholds for probabilities after normal gating. Raises UserError where the number is not
    within [0, 1] or the file is no calibration of these classes.
    """
    try:
        threshold = float(given)
    except ValueError:
        return read_calibration(Path(given)).thresholds(class_names, gated=gated)
    if not 0 <= threshold <= 1:
        raise UserError(f"--thresholds must lie within 0 and 1, not {given}")
    if gated:
        raise UserError("--gated chooses among the thresholds of a calibration.json: leave it out")
    return np.full(len(class_names), threshold)


def operating_points(
    targets: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    at: FloatArray | float,
    patients: Patients | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Operating points at thresholds (C,), or at the highest ones that reach a sensitivity.

    targets, probabilities: (N, C) as `core.metrics.evaluate` takes and checks them; "positive" is
    probability >= threshold. Returns a table indexed by class with the columns positives,
    threshold, sensitivity, specificity and ppv, and with resamples the bounds of the 95 %
    percentile interval of each of the last three (sensitivity_low, sensitivity_high, ...) over
    resamples of patients, on the draws that `evaluate` makes with this seed. Thresholds of a
    sensitivity are found anew in each resample, so that intervals include that they were chosen on
    these very rows. NaN where there is nothing to divide by: no positive, no negative, nothing
    called positive, or a threshold that is NaN. Raises UserError for a sensitivity outside (0, 1].
    """
    labels, scores = np.asarray(targets, dtype=float), np.asarray(probabilities, dtype=float)
    if isinstance(at, np.ndarray):
        measure = _at_thresholds(labels, scores, at)
    elif 0 < at <= 1:
        measure = _at_sensitivity(labels, scores, at)
    else:
        raise UserError(f"--sensitivity must be above 0 and at most 1, not {at}")
    thresholds, points = measure(np.ones((1, len(labels))))
    columns = {"positives": (labels == 1).sum(axis=0), "threshold": thresholds[0]}
    clusters = cluster_indices(patients, len(labels))
    chunks = [measure(weights)[1] for weights in resampled_weights(clusters, resamples, seed)]
    for position, name in enumerate(POINTS):
        columns[name] = points[position, 0]
        if chunks:
            samples = np.concatenate([chunk[position] for chunk in chunks])
            bounds = np.array([percentile_interval(column) for column in samples.T])
            columns[f"{name}_low"], columns[f"{name}_high"] = bounds.T
    return pd.DataFrame(columns, index=pd.Index(list(class_names), name="class"))


def _at_thresholds(labels: FloatArray, scores: FloatArray, thresholds: FloatArray) -> Measure:
    called, classes = scores >= thresholds, labels.shape[1]
    # which of the four cells of its class's table each label is in; unknown labels in none
    cells = [(labels == y) & (called == decision) for y in (1, 0) for decision in (True, False)]
    members = np.concatenate(cells, axis=1).astype(float)  # (N, 4C)

    def measure(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        counts = (weights @ members).reshape(-1, 4, classes).swapaxes(0, 1)
        points = _points(*counts)
        points[..., np.isnan(thresholds)] = np.nan
        return np.broadcast_to(thresholds, points.shape[1:]), points

    return measure


def _at_sensitivity(labels: FloatArray, scores: FloatArray, sensitivity: float) -> Measure:
    rankings = [Ranking.of(*pair) for pair in zip(labels.T, scores.T, strict=True)]

    def measure(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = [_reaching(ranking.curve(weights), sensitivity) for ranking in rankings]
        thresholds, points = zip(*found, strict=True)
        return np.stack(thresholds, axis=-1), np.stack(points, axis=-1)

    return measure


def _reaching(curve: Curve, sensitivity: float) -> tuple[FloatArray, FloatArray]:
    """Threshold (R,) and points (3, R) at the first step of a curve that is sensitive enough."""
    none = curve.positives == 0
    if not len(curve.thresholds):
        return np.full(len(none), np.nan), np.full((len(POINTS), len(none)), np.nan)
    # a quotient, which is exact where the sensitivity is a share of the positives; 0.7 * 10 is not
    reached = curve.true_positives / np.maximum(curve.positives, 1)[:, None] >= sensitivity
    step, rows = reached.argmax(axis=1), np.arange(len(none))
    hits, false_alarms = curve.true_positives[rows, step], curve.false_positives[rows, step]
    misses, passes = curve.positives - hits, curve.negatives - false_alarms
    points = _points(hits, misses, false_alarms, passes)
    points[:, none] = np.nan
    return np.where(none, np.nan, curve.thresholds[step]), points


def _points(
    hits: FloatArray, misses: FloatArray, false_alarms: FloatArray, passes: FloatArray
) -> FloatArray:
    """POINTS, (3, ...), of counts of any one shape."""
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which is what is meant
        points = hits / (hits + misses), passes / (passes + false_alarms)
        return np.stack([*points, hits / (hits + false_alarms)])
