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

MEANS = ("mAP", "mAP_medium", "mAP_tail", "mAUROC")

IMAGES_PER_PATIENT = 3.6  # as in the NIH table
# what a patient's images have in common, of the variance behind a label and of that of a score
SHARED = 0.6
# the share of the first score that the second one of a pair keeps; the rest is noise
KEPT = 0.8


def measure(
    classes: pd.DataFrame, images: int, data_sets: int, resamples: int, *, clustered: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the intervals of `evaluate` for many drawn data sets with the truth.

    classes: columns positives (expected in a data set of `images`) and true AUROC.
    clustered: patients have several images, and resamples of images are judged beside those of
    patients (column unit).

    Returns a table with a row a class and metric (AP, AUROC) and one with a row a mean over the
    classes, both with the columns of `judge`.
    """
    prevalences, shifts = parameters(classes, images)
    names = [f"class {number}" for number in range(len(classes))]
    units = ("patients", "images") if clustered else ("images",)
    evaluations: dict[str, list[Result]] = {unit: [] for unit in units}
    for seed in range(data_sets):
        random = np.random.default_rng(seed)
        targets, probabilities, patients = draw(random, images, prevalences, shifts, clustered)
        for unit in units:
            evaluations[unit].append(
                evaluate(
                    targets,
                    probabilities,
                    names,
                    prevalence=prevalences,
                    patients=patients if unit == "patients" else None,
                    resamples=resamples,
                    seed=seed,
                )
            )
    truths = truths_of(prevalences, shifts)
    of_classes, of_means = [], []
    for unit, results in evaluations.items():
        of_classes.append(classes.join(judge_classes(results, truths)).assign(unit=unit))
        of_means.append(judge_means(results, truths).assign(unit=unit))
    return pd.concat(of_classes, ignore_index=True), pd.concat(of_means, ignore_index=True)


def differences(classes: pd.DataFrame, images: int, data_sets: int, resamples: int) -> pd.DataFrame:
    """As `measure`, of `paired_difference`: the means, and the shares of all classes together.

    The second scores are the first ones with noise. One image a patient.
    """
    prevalences, shifts = parameters(classes, images)
    names = [f"class {number}" for number in range(len(classes))]
    results: list[Result] = []
    for seed in range(data_sets):
        random = np.random.default_rng(seed)
        targets, better, _ = draw(random, images, prevalences, shifts, clustered=False)
        noise = random.normal(size=better.shape)
        worse = expit(KEPT * logit(better) + np.sqrt(1 - KEPT**2) * noise)
        results.append(
            paired_difference(targets, better, worse, names, resamples=resamples, seed=seed)
        )
    first, second = truths_of(prevalences, shifts), truths_of(prevalences, KEPT * shifts)
    truths = {metric: first[metric] - second[metric] for metric in first}
    of_classes = judge_classes(results, truths).groupby("metric").mean().reset_index()
    of_classes["metric"] += " of a class"
    return pd.concat([judge_means(results, truths), of_classes], ignore_index=True)


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
    """`judge` for each mean over the classes that its interval runs over, one row a mean."""
    rows = []
    for metric in MEANS:
        with_interval = [one for one in results if metric in one.summary["intervals"]]
        if not with_interval:
            continue
        true = truths[metric.removeprefix("m").partition("_")[0].lower()]
        truth = np.array([true[inside(one, metric)].mean() for one in with_interval])
        values = np.array([one.summary["interval_points"][metric] for one in with_interval])
        lows, highs = np.array([one.summary["intervals"][metric] for one in with_interval]).T
        rows.append({"metric": metric, **judge(values, lows, highs, truth)})
    return pd.DataFrame(rows)


def inside(result: Result, metric: str) -> np.ndarray:
    """Which classes the interval of a mean runs over, (C,)."""
    left_out = result.summary["too_rare_for_intervals"] + result.summary["unscored"]
    used = ~result.per_class.index.isin(left_out)
    group = metric.partition("_")[2]
    return used & result.per_class["group"].eq(group).to_numpy() if group else used


def judge(
    values: np.ndarray, lows: np.ndarray, highs: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Shares of the data sets (first axis) whose interval covers the truth, lies above or below.

    And bias: the mean of the values minus the truth. A data set in which a class has no positive
    has no interval for it and is left out.
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


def parameters(classes: pd.DataFrame, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Prevalence of each class, and what its positives' scores have over its negatives', (C,)."""
    shifts = np.sqrt(2) * norm.ppf(classes["true AUROC"].to_numpy())
    return classes["positives"].to_numpy() / images, shifts


def truths_of(prevalences: np.ndarray, shifts: np.ndarray) -> dict[str, np.ndarray]:
    """AP and AUROC of each class in all images there could be, (C,)."""
    pairs = zip(prevalences, shifts, strict=True)
    aps = np.array([population_ap(*pair) for pair in pairs])
    return {"ap": aps, "auroc": norm.cdf(shifts / np.sqrt(2))}


def population_ap(prevalence: float, shift: float) -> float:
    """The integral of precision over recall.

    Scores are N(0, 1) for negatives and N(shift, 1) for positives.
    """

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
