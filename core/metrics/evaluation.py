"""Multi-label metrics on a long-tailed table: AP, AUROC, F1, calibration, groups, intervals.

A class without both positives and negatives has no AP, AUROC or F1: NaN, named in the summary,
left out of every macro mean. Unknown labels (NaN targets) are left out everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.errors import UserError
from core.metrics.ap_auroc import Curve, FloatArray, IntArray, column_mean
from core.metrics.calibration_error import calibration_errors, expected_calibration_error
from core.metrics.influence import AP, AUROC, Patients, cluster_indices, influence
from core.metrics.intervals import with_intervals

# head above the first, tail below the second, extreme (a part of the tail) below the third
GROUP_CUTS = (0.10, 0.01, 0.005)
GROUPS = ("head", "medium", "tail")
# macro means of the columns ap, auroc, f1 and f1_fitted
MEANS = ("mAP", "mAUROC", "mF1", "mF1_fitted")

_NO_INTERVALS = ("intervals", "interval_points", "interval_classes", "corrected")

Prevalence = Mapping[str, float] | pd.Series | Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    per_class: indexed by class name. Columns n (known labels), positives, prevalence (which decides
        the group), group (head, medium, tail, or unknown), ap, auroc, f1 (at 0.5), f1_fitted and
        threshold (see `evaluate`), ece, brier, and with resamples positive_patients, ap_corrected
        (AP minus its bias), ap_low, ap_high, auroc_low, auroc_high.
    summary: mAP, mAUROC, mF1, mF1_fitted (means over the scored classes), micro_AP (all known
        labels as one class); ECE and Brier (means over all classes with a known label; neither
        needs positives), ECE_flat (all known labels as one class), and with resamples RMSCE and
        RMSCE_flat (root mean squared, corrected for chance: `Reliability`); mAP_head, mAP_medium,
        mAP_tail, mAP_extreme (the last a part of the tail; NaN for a group without scored classes),
        group_classes (scored classes in each group); images, patients, classes, classes_scored,
        unscored (names), prevalence_from ("training" or "scored table"); resamples,
        intervals (metric -> (low, high)), interval_points (metric -> value over the classes of its
        interval), interval_classes (metric -> number of these), corrected (metric -> that value
        minus its bias); classes_in_intervals (number of all of them) and too_rare_for_intervals
        (scored classes left out of the macro intervals).
    """

    per_class: pd.DataFrame
    summary: dict[str, Any]


@dataclass(frozen=True)
class PairedDifference:
    """First minus second prediction table, on the same images.

    per_class: indexed by class name, columns ap, auroc, and with resamples positive_patients,
        ap_corrected, ap_low, ap_high, auroc_low, auroc_high.
    summary: mAP, mAUROC (differences over the scored classes), classes_scored, unscored, resamples,
        and the entries on intervals of `Evaluation`.
    """

    per_class: pd.DataFrame
    summary: dict[str, Any]


def evaluate(
    targets: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    prevalence: Prevalence | None = None,
    patients: Patients | None = None,
    resamples: int = 1000,
    seed: int = 0,
    cuts: tuple[float, float, float] = GROUP_CUTS,
) -> Evaluation:
    """Score (N, C) probabilities against (N, C) targets of 1, 0 and NaN (unknown).

    prevalence: fraction of positives of each class in training, matched by name (mapping, Series)
        or in the order of class_names, NaN for unknown; default: that of the scored table. It
        decides the groups.
    patients: (N,) identifiers for intervals over patients; an image without one is its own patient.
    resamples: parts of the patients that are left out in turn to estimate the bias of AP; 0: no
        intervals, fast enough for every epoch.
    seed: random seed of the division into these parts.
    cuts: head above the first, tail below the second, extreme tail below the third.

    f1_fitted is the best F1 of any threshold on these rows ("positive" is probability >=
    threshold): optimistic on a test table. Intervals (`core.metrics.intervals`) are NaN for a class
    with fewer than LEAST_PATIENTS positive patients; those of means are over the classes with at
    least LEAST_IN_MEANS.

    Raises UserError (a ValueError) for different shapes, no image or class, repeated names, targets
    other than 0, 1 and NaN, probabilities that are not finite or not within [0, 1], missing or
    invalid prevalences, another number of patients, negative resamples, and cuts that do not
    descend.
    """
    if not 1 >= cuts[0] >= cuts[1] >= cuts[2] >= 0:
        raise UserError(f"the cuts between groups must descend within [0, 1], got {cuts}")
    names, labels, (scores,) = _checked(targets, (probabilities,), class_names)
    clusters = _checked_clusters(patients, len(labels), resamples)
    per_class = _score_classes(labels, scores, names)
    shares = _prevalence_by_name(prevalence, per_class)
    per_class.insert(2, "prevalence", shares)
    per_class.insert(3, "group", [group_of(share, cuts) for share in shares])

    members = {name: per_class["group"].eq(name).to_numpy() for name in GROUPS}
    members["extreme"] = shares < cuts[2]
    summary = _summarise(per_class, labels, scores, members)
    summary["patients"] = int(clusters.max()) + 1 if patients is not None else None
    summary["prevalence_from"] = "scored table" if prevalence is None else "training"
    summary["resamples"] = resamples
    summary |= {name: {} for name in _NO_INTERVALS}
    if resamples > 0:
        measured = influence(labels, scores, clusters, resamples, seed)
        per_class, found = with_intervals(per_class, measured, members)
        summary |= found
        _add_calibration(summary, labels, scores, clusters)
    return Evaluation(per_class=per_class, summary=summary)


def paired_difference(
    targets: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    class_names: Sequence[str],
    patients: Patients | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """AP and AUROC of the first (N, C) predictions minus those of the second, with intervals.

    The interval is of the difference, in which shared effects of the images cancel. Targets,
    classes, patients (N,), resamples, seed and errors as in `evaluate`.
    """
    names, labels, tables = _checked(targets, (first, second), class_names)
    clusters = _checked_clusters(patients, len(labels), resamples)
    measured = [influence(labels, table, clusters, resamples, seed) for table in tables]
    difference = measured[0].minus(measured[1])
    per_class = pd.DataFrame(
        {"ap": difference.values[AP], "auroc": difference.values[AUROC]},
        index=pd.Index(names, name="class"),
    )
    summary: dict[str, Any] = {
        "mAP": column_mean(per_class["ap"]),
        "mAUROC": column_mean(per_class["auroc"]),
        "classes_scored": int(per_class["ap"].notna().sum()),
        "unscored": list(per_class.index[per_class["ap"].isna()]),
        "resamples": resamples,
        **{name: {} for name in _NO_INTERVALS},
    }
    if resamples > 0:
        per_class, found = with_intervals(per_class, difference, difference=True)
        summary |= found
    return PairedDifference(per_class, summary)


def _score_classes(labels: FloatArray, scores: FloatArray, names: list[str]) -> pd.DataFrame:
    """Scores of every class, without intervals."""
    rows = []
    for column in range(len(names)):
        known = ~np.isnan(labels[:, column])
        y, p = labels[known, column], scores[known, column]
        curve = Curve.of(p[y == 1], p[y == 0])
        ap, auroc = curve.scores()
        row = {
            "n": len(y),
            "positives": int(y.sum()),
            "ap": float(ap),
            "auroc": float(auroc),
            **dict.fromkeys(("f1", "f1_fitted", "threshold"), float("nan")),
            "ece": expected_calibration_error(y, p),
            "brier": float(np.mean((p - y) ** 2)) if len(y) else float("nan"),
        }
        if 0 < row["positives"] < row["n"]:
            called = p >= 0.5
            row["f1"] = float(2 * (called & (y == 1)).sum() / (called.sum() + y.sum()))
            steps = curve.f1()
            row["f1_fitted"] = float(steps.max())
            row["threshold"] = float(curve.thresholds[steps.argmax()])
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(names, name="class"))


def _summarise(
    per_class: pd.DataFrame,
    labels: FloatArray,
    scores: FloatArray,
    members: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Any]:
    """Means over classes and values over the flattened table."""
    scored = per_class["ap"].notna().to_numpy()
    pooled = Curve.of(scores[labels == 1], scores[labels == 0]).scores()
    summary: dict[str, Any] = {
        **{name: column_mean(per_class[name[1:].lower()]) for name in MEANS},
        "micro_AP": float(pooled[0]),
        "ECE": column_mean(per_class["ece"]),
        "ECE_flat": expected_calibration_error(labels, scores),
        "Brier": column_mean(per_class["brier"]),
        "images": len(labels),
        "classes": len(per_class),
        "classes_scored": int(scored.sum()),
        "unscored": list(per_class.index[~scored]),
        "group_classes": {group: int((scored & m).sum()) for group, m in members.items()},
    }
    for group, inside in members.items():
        summary[f"mAP_{group}"] = column_mean(per_class["ap"][inside])
    return summary


def _add_calibration(
    summary: dict[str, Any], labels: FloatArray, scores: FloatArray, clusters: IntArray
) -> None:
    """Add calibration errors corrected for chance, and their intervals."""
    for name, (value, *bounds) in calibration_errors(labels, scores, clusters).items():
        summary[name] = value
        if not np.isnan(value):
            summary["intervals"][name] = tuple(bounds)
            summary["interval_points"][name] = summary["corrected"][name] = value
            summary["interval_classes"][name] = int((~np.isnan(labels)).any(axis=0).sum())


def group_of(share: float, cuts: tuple[float, float, float] = GROUP_CUTS) -> str:
    """Group of a class by training prevalence: one of GROUPS, or unknown for NaN.

    head above cuts[0], tail below cuts[1], else medium; all are fractions in [0, 1].
    """
    if np.isnan(share):
        return "unknown"
    if share > cuts[0]:
        return "head"
    return "tail" if share < cuts[1] else "medium"


def _prevalence_by_name(given: Prevalence | None, per_class: pd.DataFrame) -> FloatArray:
    """Prevalence of each class, (C,), in the table's order."""
    if given is None:
        return (per_class["positives"] / per_class["n"].where(per_class["n"] > 0)).to_numpy(float)
    names = list(per_class.index)
    if isinstance(given, (Mapping, pd.Series)):
        missing = [name for name in names if name not in given]
        if missing:
            raise UserError(f"no training prevalence is given for the class {missing[0]!r}")
        given = [given[name] for name in names]
    shares = np.asarray(given, dtype=float)
    if shares.shape != (len(names),):
        raise UserError(f"{shares.size} training prevalences are given for {len(names)} classes")
    for name, share in zip(names, shares, strict=True):
        if share < 0 or share > 1:
            raise UserError(f"the training prevalence of {name!r} is {share:g}, not within [0, 1]")
    return shares


def _checked(
    targets: ArrayLike, tables: Sequence[ArrayLike], class_names: Sequence[str]
) -> tuple[list[str], FloatArray, list[FloatArray]]:
    """Validate names, labels (N, C) and probabilities (N, C). Raises UserError."""
    names, labels = list(class_names), np.asarray(targets, dtype=float)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"the class {repeated[0]!r} is named more than once")
    if labels.ndim != 2 or labels.shape[1] != len(names) or labels.size == 0:
        raise UserError(
            f"targets must be of shape (images, {len(names)}), one column a class and at least one "
            f"of each, but are {labels.shape}"
        )
    scores = [np.asarray(table, dtype=float) for table in tables]
    for table in scores:
        if table.shape != labels.shape:
            raise UserError(f"probabilities are {table.shape} but targets are {labels.shape}")
    rule = "target", "only 0, 1 and NaN (unknown) are labels"
    checks = [(labels, (labels == 0) | (labels == 1) | np.isnan(labels), *rule)]
    rule = "probability", "it must be finite and within [0, 1]"
    checks += [(table, (table >= 0) & (table <= 1), *rule) for table in scores]
    for values, right, what, must in checks:
        if not right.all():
            row, column = np.argwhere(~right)[0]
            raise UserError(
                f"the {what} of {names[column]!r} in row {row} is {values[row, column]:g}; {must}"
            )
    return names, labels, scores


def _checked_clusters(patients: Patients | None, images: int, resamples: int) -> IntArray:
    if resamples < 0:
        raise UserError(f"resamples must not be negative, got {resamples}")
    if patients is not None and len(patients) != images:
        raise UserError(f"{len(patients)} patients are given for {images} images")
    return cluster_indices(patients, images)
