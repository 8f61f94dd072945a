"""Intervals over patients of classes, means over classes and differences.

Each is the t interval of a jackknife over patients (Efron & Tibshirani 1993, chapter 11), on the
logit scale and around the bias-corrected value. Their coverage is measured by
`python -m benchmarks.studies.coverage`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta
from scipy.stats import t as student

from core.metrics.ap_auroc import FloatArray, IntArray, column_mean, divide_known
from core.metrics.influence import (
    AP,
    AUROC,
    MODEL_COUNTS,
    Influence,
    missing_variance,
    towards_half,
)

# least number of patients of the rarer label for the interval of a class
LEAST_PATIENTS = {"ap": 20, "auroc": 10}
# least number of these patients for a class in the interval of a mean; and the most classes, as a
# fraction of those, with between half and all of that number: there chance selects the classes, and
# AP grows with the prevalence
LEAST_IN_MEANS, MOST_NEAR = 10, 0.25
# least number of patients of the rarer outcome for the interval of a predictive value if patients
# have several images: a lower limit would select values that are too high
LEAST_RARE = 100
# least number of patients for the interval of a mean loss
LEAST_IN_LOSSES = 50
# largest fraction of a value that is corrected as bias; and the bias, as a fraction of the standard
# error, above which most of it is corrected, as its estimate has an error too
MOST_BIAS, CLEAR_BIAS = 0.6, 1 / 3
# degrees of freedom per patient of equal weight
FREEDOM = 2.0

_ROWS = {"ap": AP, "auroc": AUROC}


@dataclass(frozen=True)
class Estimate:
    """Values, their bias and variance, and the variance's degrees of freedom, of equal shape."""

    values: FloatArray
    bias: FloatArray
    variance: FloatArray
    freedom: FloatArray

    @classmethod
    def of(
        cls,
        values: FloatArray,
        bias: FloatArray,
        moves: FloatArray,
        unseen: FloatArray,
        most: FloatArray,
    ) -> "Estimate":
        """Estimate from contributions of patients (K, ...), with at most `most` degrees of freedom.

        The variance is less certain if few patients contribute most of it (Satterthwaite 1946).
        """
        variance = (moves**2).sum(axis=0) + unseen
        fourth = (moves**4).sum(axis=0)
        freedom = FREEDOM * np.divide(
            variance**2, fourth, out=np.full(fourth.shape, np.inf), where=fourth > 0
        )
        sure = divide_known(bias**2, bias**2 + CLEAR_BIAS**2 * variance)
        return cls(values, bias * np.nan_to_num(sure), variance, np.minimum(freedom, most))

    def corrected(self, *, difference: bool = False) -> FloatArray:
        """Values minus their bias, within 0 and 1 unless they are differences."""
        if difference:
            return np.clip(self.values - self.bias, -1, 1)
        return np.clip(self.values - np.minimum(self.bias, MOST_BIAS * self.values), 0, 1)

    def interval(self) -> FloatArray:
        """95 % intervals (2, ...) of values within 0 and 1; NaN without degrees of freedom."""
        least = towards_half(0.0, np.minimum(self.freedom, 1e6) + 1)
        centre = np.clip(self.corrected(), least, 1 - least)
        width = self._width() / (centre * (1 - centre))
        low, high = expit(np.stack([logit(centre) - width, logit(centre) + width]))
        # the interval includes its own value at both ends of the scale
        low = np.where(self.values < least, np.minimum(low, self.values), low)
        high = np.where(self.values > 1 - least, np.maximum(high, self.values), high)
        return np.stack([low, np.where(np.isnan(low), np.nan, high)])

    def difference_interval(self) -> FloatArray:
        """95 % intervals (2, ...) of differences between values within 0 and 1."""
        return np.clip(self.unbounded_interval(), -1, 1)

    def unbounded_interval(self) -> FloatArray:
        """95 % intervals (2, ...) of unbounded values."""
        centre, width = self.values - self.bias, self._width()
        return np.stack([centre - width, centre + width])

    def _width(self) -> FloatArray:
        quantile = student.ppf(0.975, np.maximum(self.freedom, 1))
        return np.where(self.freedom >= 1, quantile, np.nan) * np.sqrt(self.variance)


def estimate_classes(found: Influence, row: int) -> Estimate:
    """AP or AUROC of each class, (C,); `row` is AP or AUROC of `core.metrics.influence`."""
    return Estimate.of(
        found.values[row], found.bias[row], found.moves[row], found.unseen[row], found.freedom
    )


def estimate_mean(found: Influence, row: int, chosen: NDArray[np.bool_]) -> Estimate:
    """Mean of AP or AUROC over the chosen classes (C,); shape ()."""
    return Estimate.of(
        found.values[row, chosen].mean(),
        found.bias[row, chosen].mean(),
        found.moves[row][:, chosen].mean(axis=1),
        found.unseen[row, chosen].sum() / chosen.sum() ** 2,
        found.freedom[chosen].sum(),
    )


def mean_losses(losses: FloatArray, clusters: IntArray) -> Estimate:
    """Mean over classes of their mean losses (N, C; NaN: unknown); shape ().

    `losses` may be differences between two models. clusters: (N,), index of the patient. Classes
    without a known label are left out. Fewer than LEAST_IN_LOSSES patients have no interval.
    """
    known = ~np.isnan(losses)
    classes, patients = known.any(axis=0), len(np.unique(clusters[known.any(axis=1)]))
    if not patients:
        unknown = np.array(np.nan)
        return Estimate(unknown, unknown, unknown, unknown)
    losses, known = np.nan_to_num(losses[:, classes]), known[:, classes]
    images, sums = count_by_patient(known, clusters), count_by_patient(losses, clusters)
    total = images.sum(axis=0)
    means = sums.sum(axis=0) / total
    moves = ((sums - means * images) / np.maximum(total - images, 1)).mean(axis=1)
    zero = np.zeros(())
    most = patients - 1.0 if patients >= LEAST_IN_LOSSES else 0.0
    return Estimate.of(np.array(means.mean()), zero, moves, zero, np.array(most))


def with_intervals(
    per_class: pd.DataFrame,
    found: Influence,
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    difference: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add intervals: columns ap_low, ap_high, auroc_low, auroc_high, and a summary of the means.

    Also the columns positive_patients and ap_corrected, the AP minus its bias. groups: name -> (C,)
    classes, for intervals of their mAP; difference: the values are differences.
    """
    make = Estimate.difference_interval if difference else Estimate.interval
    columns: dict[str, Any] = {"positive_patients": found.patients}
    enough = {}
    for metric, row in _ROWS.items():
        estimate = estimate_classes(found, row)
        enough[metric] = found.fewest >= LEAST_PATIENTS[metric]
        bounds = np.where(enough[metric], make(estimate), np.nan)
        columns[f"{metric}_low"], columns[f"{metric}_high"] = bounds
        if metric == "ap":
            columns["ap_corrected"] = estimate.corrected(difference=difference)
    scored = per_class["ap"].notna().to_numpy()
    common = found.fewest >= LEAST_IN_MEANS
    subsets = {f"mAP_{name}": ("ap", inside) for name, inside in (groups or {}).items()}
    subsets |= {"mAP": ("ap", scored), "mAUROC": ("auroc", scored)}
    summary: dict[str, Any] = {
        key: {} for key in ("intervals", "interval_points", "interval_classes", "corrected")
    }
    for metric, (column, inside) in subsets.items():
        chosen = scored & common & inside
        near = scored & ~common & inside & (2 * found.fewest >= LEAST_IN_MEANS)
        # a mean over one class follows the rule of that class
        if chosen.sum() == 1:
            chosen &= enough[column]
        if column == "ap" and near.sum() > MOST_NEAR * chosen.sum():
            continue
        if chosen.any():
            estimate = estimate_mean(found, _ROWS[column], chosen)
            low, high = make(estimate)
            if np.isnan(low):
                continue
            summary["intervals"][metric] = float(low), float(high)
            summary["interval_points"][metric] = column_mean(per_class[column][chosen])
            summary["interval_classes"][metric] = int(chosen.sum())
            summary["corrected"][metric] = float(estimate.corrected(difference=difference))
    summary["classes_in_intervals"] = int((scored & common).sum())
    summary["too_rare_for_intervals"] = list(per_class.index[scored & ~common])
    return per_class.assign(**columns), summary


def share_intervals(
    right: NDArray[np.bool_],
    among: NDArray[np.bool_],
    clusters: IntArray,
    *,
    chosen: bool = False,
    rare: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Proportions (C,) of `right` among the images `among` (N, C), and 95 % intervals (2, C).

    right: (N, C); clusters: (N,), index of the patient. NaN for a proportion of no images. chosen:
    a threshold was adjusted to reach the proportion. rare: one outcome may be rare, so that its few
    patients decide. No interval (NaN) for fewer than ten patients, and, if `rare`, for fewer than
    LEAST_RARE effective patients unless each has one image.
    """
    hits, images = count_by_patient(right & among, clusters), count_by_patient(among, clusters)
    count = np.count_nonzero(images, axis=0)
    estimate, equal = _estimate_shares(hits, images, rare=rare)
    shares = estimate.values
    if chosen:
        bounds = _of_chosen(shares, _effective(estimate, equal, images))
    else:
        # a rare outcome needs many patients, unless each has one image
        clear = (equal >= LEAST_RARE) | (not rare)
        bounds = np.where(clear, _with_ends(estimate, equal), np.nan)
        bounds = np.where(images.max(axis=0) <= 1, _of_single(shares, count), bounds)
    return shares, np.where(count >= LEAST_PATIENTS["auroc"], bounds, np.nan)


def effective_patients(
    right: NDArray[np.bool_], among: NDArray[np.bool_], clusters: IntArray
) -> FloatArray:
    """Effective number of independent patients for each proportion of `share_intervals`, (C,)."""
    hits, images = count_by_patient(right & among, clusters), count_by_patient(among, clusters)
    return _effective(*_estimate_shares(hits, images), images)


def _estimate_shares(
    hits: FloatArray, images: FloatArray, *, rare: bool = False
) -> tuple[Estimate, FloatArray]:
    """Proportions (C,) of `hits` among the `images` of K patients, (K, C) both; and the number (C,)
    of equivalent patients with equally many images, or images of the rarer outcome."""
    total, count = images.sum(axis=0), np.count_nonzero(images, axis=0)
    shares = divide_known(hits.sum(axis=0), total)
    fewer = np.where(shares > 0.5, images - hits, hits)
    equal = equal_patients(fewer if rare else images)
    moves = (hits - np.nan_to_num(shares) * images) / np.maximum(total - images, 1)
    share = towards_half(shares, count)
    model = share * (1 - share) / np.maximum(count, 1)
    unseen = np.nan_to_num(missing_variance(model, (moves**2).sum(axis=0), equal, MODEL_COUNTS))
    return Estimate.of(shares, 0 * shares, moves, unseen, equal - 1), equal


def _effective(estimate: Estimate, equal: FloatArray, images: FloatArray) -> FloatArray:
    """Effective number of patients by the variance of proportions and its degrees of freedom (Korn
    & Graubard 1998): at least `equal`, at most the number of images."""
    spread = estimate.values * (1 - estimate.values)
    sure = student.ppf(0.975, np.inf) / student.ppf(0.975, np.maximum(estimate.freedom, 1))
    found = np.nan_to_num(divide_known(spread, estimate.variance)) * sure**2
    return np.clip(found, equal, np.maximum(equal, images.sum(axis=0)))


def _of_chosen(shares: FloatArray, patients: FloatArray) -> FloatArray:
    """Intervals (2, C) of the true proportions of a threshold adjusted to reach these `shares`.

    The proportion of new patients above the kth of n scores has the distribution of the kth of n
    uniform numbers.
    """
    cases = np.nan_to_num(shares) * patients
    cuts = np.array([[0.025], [0.975]])
    low, high = beta.ppf(cuts, np.maximum(cases, 1e-9), patients + 1 - cases)
    return np.stack([np.where(shares == 0, 0, low), np.where(shares == 1, 1, high)])


def _with_ends(estimate: Estimate, patients: FloatArray) -> FloatArray:
    """Intervals (2, C) of proportions; exact ones for 0 and 1 (Brown 2001)."""
    low, high = estimate.interval()
    far = np.where(np.isnan(low), np.nan, 0.025 ** (1 / np.maximum(patients, 1)))
    low = np.where(estimate.values == 1, far, low)
    return np.stack([low, np.where(estimate.values == 0, 1 - far, high)])


def _of_single(shares: FloatArray, patients: IntArray) -> FloatArray:
    """Jeffreys intervals (2, C) of proportions of independent patients, extended to 0 and 1."""
    cases = np.nan_to_num(shares) * patients
    cuts = np.array([[0.025], [0.975]])
    low, high = beta.ppf(cuts, cases + 0.5, patients - cases + 0.5)
    return np.stack([np.where(shares == 0, 0, low), np.where(shares == 1, 1, high)])


def count_by_patient(images: NDArray[Any], clusters: IntArray) -> FloatArray:
    """Sum of values (N, C) over the images of each of K patients, (K, C)."""
    return np.stack([np.bincount(clusters, weights=column) for column in images.T], axis=1)


def equal_patients(images: FloatArray) -> FloatArray:
    """Equivalent number of patients with equally many images, (C,), for `images` (K, C)."""
    return np.nan_to_num(divide_known(images.sum(axis=0) ** 2, (images**2).sum(axis=0)))
