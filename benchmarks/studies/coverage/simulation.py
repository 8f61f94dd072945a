"""Simulated data sets with known true scores, and coverage of the intervals (study `coverage`).

Scores are normal, so that the truth is an integral, independent of the tested code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.runner import required_data
from core.metrics.calibration_error import CALIBRATION_BINS

FloatArray = NDArray[np.float64]
POSITIVES = (2, 5, 10, 20, 50, 200)
AUROCS = (0.7, 0.8, 0.9, 0.95)
RHOS = (0.0, 0.6, 0.9)
# fewest intervals of a cell with a verdict
LEAST_INTERVALS = 200


class Interval(NamedTuple):
    """Interval of one quantity in a data set, for a class by positives and true AUROC."""

    what: str
    positives: int
    auroc: float
    low: float
    high: float
    value: float
    truth: float


class Sample(NamedTuple):
    """Data set: labels 1 and 0 and probabilities (N, C), and patients (N,)."""

    targets: FloatArray
    probabilities: FloatArray
    patients: NDArray[np.intp]


@dataclass(frozen=True)
class Population:
    """Distribution of data sets with C classes.

    A label is 1 if a standard normal number exceeds the quantile of the class's prevalence; the
    score is another normal number, plus the class's shift if the label is 1. Both are sums of a
    patient's and an image's number, so that the marginal distribution of an image does not depend
    on patients.
    """

    prevalences: FloatArray
    aurocs: FloatArray
    sizes: NDArray[np.intp]
    """Numbers of images a patient, from which each patient's is drawn."""
    patients: int
    """Patients of a data set."""
    shared: float = 0.0
    """Share of the variance of labels and scores within a patient."""
    levels: int | None = None
    """Number of different probabilities; None: not rounded."""

    @property
    def expected(self) -> FloatArray:
        """(C,) mean number of positives in a data set."""
        return self.prevalences * self.patients * self.sizes.mean()

    @property
    def shifts(self) -> FloatArray:
        """(C,) mean score of positives minus that of negatives."""
        return np.sqrt(2) * norm.ppf(self.aurocs)

    @property
    def aps(self) -> FloatArray:
        """(C,) AP of the population."""
        if self.levels is not None:
            return self._of_levels()[0]
        pairs = zip(self.prevalences, self.shifts, strict=True)
        return np.array([population_ap(float(share), float(shift)) for share, shift in pairs])

    @property
    def areas(self) -> FloatArray:
        """(C,) AUROC of the population."""
        return self.aurocs if self.levels is None else self._of_levels()[1]

    def _of_levels(self) -> FloatArray:
        """AP and AUROC (2, C) of rounded scores: sums over the levels, where ties count half."""
        assert self.levels is not None
        edges = logit((np.arange(self.levels, 0, -1) - 0.5) / self.levels)[:, None]
        # shares of positives and of negatives at or above each level, the highest first
        above = np.stack([norm.sf(edges - self.shifts), norm.sf(edges + 0 * self.shifts)])
        above = np.concatenate([above, np.ones((2, 1, len(self.shifts)))], axis=1)
        at = np.diff(above, axis=1, prepend=0)
        found, false = above[0] * self.prevalences, above[1] * (1 - self.prevalences)
        ap = (at[0] * found / (found + false)).sum(axis=0)
        return np.stack([ap, (at[0] * (1 - above[1] + at[1] / 2)).sum(axis=0)])

    def draw(self, random: np.random.Generator) -> Sample:
        """A data set."""
        patients = np.repeat(
            np.arange(self.patients), random.choice(self.sizes, size=self.patients)
        )
        hidden = self.normal(random, patients)
        targets = (hidden > norm.isf(self.prevalences)).astype(float)
        scores = self.normal(random, patients) + self.shifts * targets
        return Sample(targets, self.probabilities(scores), patients)

    def normal(self, random: np.random.Generator, patients: NDArray[np.intp]) -> FloatArray:
        """Standard normal numbers (N, C), correlated within a patient."""
        shape = len(patients), len(self.prevalences)
        own = random.standard_normal(shape)
        if not self.shared:
            return own
        common = random.standard_normal((int(patients.max()) + 1, shape[1]))[patients]
        return np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * own

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Convert scores to probabilities, rounded to `levels`."""
        found = expit(scores)
        return found if self.levels is None else np.round(found * self.levels) / self.levels

    def calibrated(self, probabilities: FloatArray, sharpened: float = 1.0) -> FloatArray:
        """(N, C) true probability of a positive given the score, with logits times `sharpened`."""
        return expit(sharpened * self._log_odds(logit(probabilities)))

    def reliability(self, sharpened: float) -> tuple[float, float]:
        """True root mean squared calibration error of `calibrated`, over classes and flattened."""
        scores = np.linspace(-8, 12, 40_001)[:, None]
        positive = self.prevalences * norm.pdf(scores - self.shifts)
        density = (positive + (1 - self.prevalences) * norm.pdf(scores)) * (scores[1] - scores[0])
        log_odds = self._log_odds(scores)
        given = expit(sharpened * log_odds)
        bins = np.minimum((given * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        gap = density * (expit(log_odds) - given)
        sums = np.stack(
            [
                [np.bincount(*pair, CALIBRATION_BINS) for pair in zip(bins.T, one.T, strict=True)]
                for one in (density, gap)
            ]
        ).swapaxes(1, 2)

        def mean_square(share: FloatArray, gaps: FloatArray) -> FloatArray:
            return (gaps**2 / np.maximum(share, 1e-300)).sum(axis=0)

        flat = mean_square(*sums.mean(axis=2))
        return float(np.sqrt(mean_square(*sums).mean())), float(np.sqrt(flat))

    def _log_odds(self, scores: FloatArray) -> FloatArray:
        """Log-odds of a positive given the score, (N, C)."""
        return logit(self.prevalences) + self.shifts * scores - self.shifts**2 / 2

    def second(self, random: np.random.Generator, first: Sample, kept: float, own: float) -> Sample:
        """Another model: `kept` times the shift of the first, and a share `own` of new noise."""
        noise = logit(first.probabilities) - self.shifts * first.targets
        other = self.normal(random, first.patients)
        mixed = np.sqrt(1 - own) * noise + np.sqrt(own) * other
        return first._replace(probabilities=expit(mixed + kept * self.shifts * first.targets))

    def weaker(self, kept: float) -> "Population":
        """Population of `second`'s probabilities."""
        return replace(self, aurocs=norm.cdf(kept * self.shifts / np.sqrt(2)))


def grid(rho: float, positives: Iterable[int] = POSITIVES, levels: int | None = None) -> Population:
    """Population with a class for each mean number of positives and each AUROC."""
    pairs = [(count, auroc) for count in positives for auroc in AUROCS]
    sizes, patients = np.array([1]), 2000
    if rho:
        labels = required_data() / "labels" / "nih_chestxray14.csv.gz"
        sizes = pd.read_csv(labels, usecols=["PatientID"]).value_counts().to_numpy()
        patients = 1000
    counts, aurocs = np.array(pairs).T
    return Population(counts / patients / sizes.mean(), aurocs, sizes, patients, rho, levels)


@dataclass(frozen=True)
class RealLabels(Population):
    """Population of a real label table, with normal scores."""

    labels: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    """(N, C) of all patients, image by image and patient by patient."""

    @classmethod
    def of_nih(cls, data: Path, patients: int) -> "RealLabels":
        """The 15 columns of NIH ChestX-ray14, with AUROCs of 0.7 to 0.95 in turn."""
        table = pd.read_csv(data / "labels" / "nih_chestxray14.csv.gz").sort_values("PatientID")
        sizes = table["PatientID"].value_counts(sort=False).to_numpy()
        labels = table.drop(columns=["ImageID", "PatientID"]).to_numpy(float)
        aurocs = np.resize([0.7, 0.8, 0.9, 0.95], labels.shape[1])
        images = sizes.astype(np.intp)
        return cls(labels.mean(axis=0), aurocs, images, patients, 0.6, None, labels)

    def draw(self, random: np.random.Generator) -> Sample:
        """A data set."""
        chosen = random.integers(len(self.sizes), size=self.patients)
        starts = np.append(0, self.sizes.cumsum())
        rows = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in chosen])
        patients = np.repeat(np.arange(self.patients), self.sizes[chosen])
        targets = self.labels[rows]
        scores = self.normal(random, patients) + self.shifts * targets
        return Sample(targets, self.probabilities(scores), patients)


@cache
def population_ap(prevalence: float, shift: float) -> float:
    """Integral of precision over recall; scores are N(0, 1), and N(shift, 1) for positives."""

    def precision(recall: float) -> float:
        false_positives = (1 - prevalence) * norm.sf(shift + norm.isf(recall))
        return prevalence * recall / (prevalence * recall + false_positives)

    # precision may fall steeply at low recall
    return quad(precision, 0, 1, points=[1e-4, 1e-2], limit=500)[0]


def beats_low_negative(shift: float) -> float:
    """Probability that a positive scores above a negative with a score below 0."""
    density = quad(lambda low: norm.pdf(low) * norm.sf(low - shift), -np.inf, 0)[0]
    return density / norm.cdf(0)


def percentile_intervals(
    sample: Sample, random: np.random.Generator, resamples: int = 200
) -> tuple[FloatArray, FloatArray]:
    """95 % percentile intervals of AP and AUROC (2) over resamples of patients, and of their means.

    (2, 2, C) and (2, 2), lower ends first. Scores without ties; a resample of a class without
    positives has no value.
    """
    targets, probabilities, patients = sample
    number, classes = int(patients.max()) + 1, targets.shape[1]
    drawn = random.multinomial(number, np.full(number, 1 / number), size=resamples)[:, patients]
    values = np.full((2, resamples, classes), np.nan)
    for column in range(classes):
        order = np.argsort(-probabilities[:, column])
        weights = drawn[:, order].astype(float)
        hits = weights * targets[order, column]
        true, called = hits.cumsum(axis=1), weights.cumsum(axis=1)
        positives, false = true[:, -1], called - true
        valid = positives > 0
        precision = true / np.maximum(called, 1)
        values[0, valid, column] = (hits * precision).sum(axis=1)[valid] / positives[valid]
        lost = (hits * false).sum(axis=1)[valid] / (positives * false[:, -1])[valid]
        values[1, valid, column] = 1 - lost
    ends = [2.5, 97.5]
    known = np.isnan(values).mean(axis=1) < 1
    safe = np.where(known[:, None], values, 0)
    bounds = np.where(known, np.nanpercentile(safe, ends, axis=1), np.nan)
    return bounds, np.nanpercentile(np.nanmean(safe, axis=2), ends, axis=1)


def table_of(rows: pd.DataFrame, data_sets: int) -> pd.DataFrame:
    """Coverage of the printed intervals, shares above and below the truth, and standard errors."""
    keys = ["scenario", "what", "positives", "auroc"]
    rows = rows.assign(truth=rows["truth"].fillna(rows.groupby(keys)["value"].transform("mean")))
    printed = rows[rows["low"].notna()].copy()
    printed["above"] = printed["low"] > printed["truth"]
    printed["below"] = printed["high"] < printed["truth"]
    printed["covered"] = ~(printed["above"] | printed["below"])
    printed["zero_outside"] = (printed["low"] > 0) | (printed["high"] < 0)
    printed["width"] = printed["high"] - printed["low"]
    groups = printed.groupby(keys)
    found = groups[["covered", "above", "below", "zero_outside", "width"]].mean()
    found.insert(0, "intervals", groups.size())
    # a class of the same kind may be in a data set more than once
    every = rows.groupby(keys).size()
    found = found.reindex(every.index)
    bias = rows.assign(bias=rows["value"] - rows["truth"]).groupby(keys)["bias"]
    found["bias"] = bias.mean()
    found["intervals"] = found["intervals"].fillna(0).astype(int)
    found.insert(1, "printed", found["intervals"] / every)
    error = np.sqrt(0.95 * 0.05 / found["intervals"].clip(1, data_sets))
    found["error"] = error
    inside = found["covered"].between(0.93 - 2 * error, 0.97 + 2 * error)
    judged = found["intervals"] >= LEAST_INTERVALS
    found["verdict"] = np.where(judged, np.where(inside, "ok", "MISSED"), "")
    return found.reset_index()
