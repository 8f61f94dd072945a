"""Operating points: sensitivity, specificity and predictive values at a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import beta

from core.errors import UserError
from core.metrics.ap_auroc import FloatArray, IntArray
from core.metrics.influence import Patients, cluster_indices
from core.metrics.intervals import (
    LEAST_PATIENTS,
    effective_patients,
    share_intervals,
)
from ensemble.predict.calibration import read_calibration

POINTS = ("sensitivity", "specificity", "ppv", "npv")
OTHER = {"sensitivity": "specificity", "specificity": "sensitivity"}


def read_thresholds(given: str, class_names: Sequence[str], *, gated: bool) -> FloatArray:
    """Thresholds (C,) of --thresholds: one number for all classes, or those of a calibration.json.

    NaN for a class without a fitted threshold. `gated` selects the thresholds for probabilities
    after normal gating. Raises UserError if the number is not within [0, 1] or the file is not a
    valid calibration of these classes.
    """
    try:
        threshold = float(given)
    except ValueError:
        return read_calibration(Path(given)).thresholds(class_names, gated=gated)
    if not 0 <= threshold <= 1:
        raise UserError(f"--thresholds must be within 0 and 1, not {given}")
    if gated:
        raise UserError("--gated needs the thresholds of a calibration.json: leave it out")
    return np.full(len(class_names), threshold)


@dataclass(frozen=True)
class TargetPoint:
    """Target operating point: `point`, sensitivity or specificity, is at least `least`.

    Raises UserError unless 0 < least <= 1.
    """

    point: str
    least: float

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise UserError(f"--{self.point} must be above 0 and at most 1, not {self.least}")

    def __str__(self) -> str:
        which = "highest" if self.point == "sensitivity" else "lowest"
        return f"the {which} threshold of {self.point} {self.least:g}"

    def thresholds(
        self, labels: FloatArray, scores: FloatArray, least: FloatArray | float | None = None
    ) -> FloatArray:
        """Threshold of each class (C,) for the share `least`, a number or (C,).

        By default for `self.least`. labels: (N, C) of 1, 0 and NaN (unknown); scores: (N, C). The
        highest threshold for a sensitivity, the lowest for a specificity; NaN without positives (of
        a specificity: negatives).
        """
        shares = np.broadcast_to(self.least if least is None else least, labels.shape[1])
        classes = zip(labels.T, scores.T, shares, strict=True)
        return np.array([self._threshold(*one) for one in classes])

    def _threshold(self, labels: FloatArray, scores: FloatArray, least: float) -> float:
        """Highest threshold for a sensitivity, lowest for a specificity."""
        own = np.sort(scores[labels == (self.point == "sensitivity")])
        if not len(own) or np.isnan(least):
            return float("nan")
        # by division, which is exact for 7 / 10; 0.7 * 10 is not
        shares = np.arange(1, len(own) + 1) / len(own)
        count = min(int(np.searchsorted(shares, least)), len(own) - 1)
        if self.point == "sensitivity":
            return float(own[::-1][count])
        above = scores[(scores > own[count]) & ~np.isnan(labels)]
        return float(above.min()) if len(above) else float(np.nextafter(own[count], 2))


def operating_points(
    targets: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    at: FloatArray | TargetPoint,
    patients: Patients | None = None,
    *,
    intervals: bool = True,
) -> pd.DataFrame:
    """Operating points at thresholds (C,), or at those of a target sensitivity or specificity.

    targets, probabilities: (N, C), as `core.metrics.evaluate` takes them, but not checked here;
    patients: (N,). "Positive" is probability >= threshold. Returns a table indexed by class with
    the columns positives, threshold and POINTS, and with `intervals` the bounds ..._low and
    ..._high of 95 % intervals over patients, at the printed threshold, on other patients. A
    TargetPoint adds threshold_low and threshold_high, the sampling variation of the threshold, and
    specificity_at_sensitivity_low and _high (or the reverse), the other point where the target is
    reached exactly. NaN for a division by 0, a NaN threshold, and intervals of fewer than ten
    patients (predictive values, with several images a patient: fewer than a hundred with the rarer
    outcome).
    """
    labels, scores = np.asarray(targets, dtype=float), np.asarray(probabilities, dtype=float)
    chosen = at.point if isinstance(at, TargetPoint) else None
    thresholds = at.thresholds(labels, scores) if isinstance(at, TargetPoint) else at
    clusters = cluster_indices(patients, len(labels))
    columns = {"positives": (labels == 1).sum(axis=0), "threshold": thresholds}
    shares, bounds = _points(labels, scores, thresholds, clusters, chosen)
    for name, share, interval in zip(POINTS, shares, bounds, strict=True):
        columns[name] = share
        if intervals:
            columns[f"{name}_low"], columns[f"{name}_high"] = interval
    if intervals and isinstance(at, TargetPoint):
        columns |= _spread(labels, scores, clusters, at, dict(zip(POINTS, bounds, strict=True)))
    return pd.DataFrame(columns, index=pd.Index(list(class_names), name="class"))


def _points(
    labels: FloatArray,
    scores: FloatArray,
    thresholds: FloatArray,
    clusters: IntArray,
    chosen: str | None,
) -> tuple[FloatArray, FloatArray]:
    """POINTS (4, C) and their intervals (4, 2, C) at thresholds (C,).

    The chosen point is on average lower on other patients: of n positives the expected share above
    the k-th score is k / (n + 1).
    """
    called, positive = scores >= thresholds, labels == 1
    known = ~(np.isnan(labels) | np.isnan(thresholds))
    right = called == positive
    among = {"sensitivity": positive, "specificity": ~positive, "ppv": called, "npv": ~called}
    found = [
        share_intervals(
            right,
            among[name] & known,
            clusters,
            chosen=name == chosen,
            # for a rare class few misses decide, for any number of images
            rare=name in ("ppv", "npv"),
        )
        for name in POINTS
    ]
    shares, bounds = zip(*found, strict=True)
    return np.stack(shares), np.stack(bounds)


def _spread(
    labels: FloatArray,
    scores: FloatArray,
    clusters: IntArray,
    at: TargetPoint,
    bounds: dict[str, FloatArray],
) -> dict[str, FloatArray]:
    """Sampling variation of the thresholds (C,) of a target point, and of the other point.

    Woodruff's (1952) interval: thresholds between which the share `at.least` can be for this number
    of patients. NaN if it reaches the most extreme patient.
    """
    other, own = OTHER[at.point], labels == (at.point == "sensitivity")
    called = scores >= at.thresholds(labels, scores)
    patients = effective_patients(called == (labels == 1), own, clusters)
    cases = at.least * patients
    shares = beta.ppf(
        [[0.025], [0.975]], [cases, cases + 1], [patients - cases + 1, patients - cases]
    )
    # the image at the upper bound is inside
    shares[1] += 1 / np.maximum(own.sum(axis=0), 1)
    shares = np.where((shares[1] < 1) & (patients >= LEAST_PATIENTS["auroc"]), shares, np.nan)
    ends = np.stack([at.thresholds(labels, scores, least) for least in shares])
    ends.sort(axis=0)
    place = POINTS.index(other)
    values = np.stack([_points(labels, scores, end, clusters, None)[0][place] for end in ends])
    values = logit(np.clip(np.sort(values, axis=0), 1e-6, 1 - 1e-6))
    alone = logit(np.clip(bounds[other], 1e-6, 1 - 1e-6))
    centre = alone.mean(axis=0)
    # the threshold and the other kind of images vary independently
    width = np.hypot(values - centre, alone - centre)
    name = f"{other}_at_{at.point}"
    return {
        "threshold_low": ends[0],
        "threshold_high": ends[1],
        f"{name}_low": expit(centre - width[0]),
        f"{name}_high": expit(centre + width[1]),
    }
