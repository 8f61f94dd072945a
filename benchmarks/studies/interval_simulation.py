"""Data sets of known AP and AUROC, and how often intervals of `core.metrics` cover the truth.

Scores are normal, so that the truth is known by integration and not by the code that is judged.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from core.metrics import Evaluation, PairedDifference, evaluate, paired_difference

Result = Evaluation | PairedDifference

KINDS = {
    "single": "one image a patient",
    "patients": "several images a patient, resamples of patients",
    "images": "several images a patient, resamples of images",
    "pairs": "one image a patient, differences of two predictions",
}
MEANS = ("mAP", "mAP_medium", "mAP_tail", "mAUROC")

IMAGES_PER_PATIENT = 3.6  # as in the NIH table
# what a patient's images have in common, of the variance behind a label and of that of a score
SHARED = 0.6
# the share of the first score that the second one of a pair keeps; the rest is noise
KEPT = 0.8


def measure(
    classes: pd.DataFrame, images: int, data_sets: int, resamples: int, kind: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the intervals of many drawn data sets with the truth.

    classes: columns positives (expected in a data set of `images`) and true AUROC. kind: of KINDS.

    Returns the columns of `judge` for each class and metric (AP, AUROC), and for each mean over the
    classes (the index).
    """
    prevalences = classes["positives"].to_numpy() / images
    # what the scores of a class's positives have over those of its negatives
    shifts = np.sqrt(2) * norm.ppf(classes["true AUROC"].to_numpy())
    truths = truths_of(prevalences, shifts)
    if kind == "pairs":
        second = truths_of(prevalences, KEPT * shifts)
        truths = {metric: truth - second[metric] for metric, truth in truths.items()}
    names = [f"class {number}" for number in range(len(classes))]
    results: list[Result] = []
    for seed in range(data_sets):
        random = np.random.default_rng(seed)
        clustered = kind in ("patients", "images")
        targets, scores, patients = draw(random, images, prevalences, shifts, clustered)
        if kind == "pairs":
            noise = np.sqrt(1 - KEPT**2) * random.normal(size=scores.shape)
            worse = expit(KEPT * logit(scores) + noise)
            results.append(
                paired_difference(targets, scores, worse, names, resamples=resamples, seed=seed)
            )
            continue
        results.append(
            evaluate(
                targets,
                scores,
                names,
                prevalence=prevalences,
                patients=patients if kind == "patients" else None,
                resamples=resamples,
                seed=seed,
            )
        )
    return classes.join(judge_classes(results, truths)), judge_means(results, truths)


def judge_classes(results: Sequence[Result], truths: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`judge` for each class (the index) and metric."""
    tables = []
    for metric, truth in truths.items():
        columns = [metric, f"{metric}_low", f"{metric}_high"]
        stacked = np.array([result.per_class[columns].to_numpy().T for result in results])
        values, lows, highs = stacked.swapaxes(0, 1)
        judged = judge(values, lows, highs, truth)
        tables.append(pd.DataFrame({"metric": metric.upper(), **judged}))
    return pd.concat(tables)


def judge_means(results: Sequence[Result], truths: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`judge` for each mean (the index), over the classes that its interval covers."""
    rows = {}
    for metric in MEANS:
        known = [one for one in results if metric in one.summary["intervals"]]
        if not known:
            continue
        true = truths[metric.removeprefix("m").partition("_")[0].lower()]
        truth = np.array([true[averaged(one, metric)].mean() for one in known])
        values = np.array([one.summary["interval_points"][metric] for one in known])
        lows, highs = np.array([one.summary["intervals"][metric] for one in known]).T
        rows[metric] = judge(values, lows, highs, truth)
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def averaged(result: Result, metric: str) -> np.ndarray:
    """Which classes the interval of a mean covers, (C,)."""
    left_out = result.summary["too_rare_for_intervals"] + result.summary["unscored"]
    used = ~result.per_class.index.isin(left_out)
    group = metric.partition("_")[2]
    return used & result.per_class["group"].eq(group).to_numpy() if group else used


def judge(
    values: np.ndarray, lows: np.ndarray, highs: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Shares of the data sets (first axis) whose interval covers the truth, lies above or below.

    And bias: the mean of the values minus the truth. A data set without an interval is left out.
    """
    known = (~np.isnan(lows)).sum(axis=0)
    # false for NaN
    above, below = (lows > truth).sum(axis=0), (highs < truth).sum(axis=0)
    return {
        "covered": (known - above - below) / known,
        "above": above / known,
        "below": below / known,
        "bias": np.nanmean(values - truth, axis=0),
    }


def truths_of(prevalences: np.ndarray, shifts: np.ndarray) -> dict[str, np.ndarray]:
    """AP and AUROC of each class in an endless data set, (C,)."""
    pairs = zip(prevalences, shifts, strict=True)
    aps = np.array([population_ap(*pair) for pair in pairs])
    return {"ap": aps, "auroc": norm.cdf(shifts / np.sqrt(2))}


def population_ap(prevalence: float, shift: float) -> float:
    """Integral of precision over recall; scores are N(0, 1), and N(shift, 1) for positives."""

    def precision(recall: float) -> float:
        false_positives = (1 - prevalence) * norm.sf(shift + norm.isf(recall))
        return prevalence * recall / (prevalence * recall + false_positives)

    # precision may fall steeply where recall begins
    return quad(precision, 0, 1, points=[1e-4, 1e-2], limit=500)[0]


def draw(
    random: np.random.Generator,
    images: int,
    prevalences: np.ndarray,
    shifts: np.ndarray,
    clustered: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets (N, C), probabilities (N, C) and patients (N,) of a data set.

    A label is 1 where a standard normal number is large enough for the class's prevalence; the
    score is another one, higher by the class's shift where the label is 1. clustered: patients have
    several images (a geometric number), and both numbers of an image are the sum of one of its
    patient and one of its own, so that an image by itself is drawn as without patients.
    """
    patients = np.arange(images)
    both = random.normal(size=(2, images, len(prevalences)))
    if clustered:
        sizes = random.geometric(1 / IMAGES_PER_PATIENT, size=images)
        patients = np.repeat(patients, sizes)[:images]
        common = random.normal(size=both.shape)[:, patients]
        both = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * both
    targets = (both[0] > norm.isf(prevalences)).astype(float)
    return targets, expit(both[1] + shifts * targets), patients
