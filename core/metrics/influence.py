"""AP and AUROC of each class, and the influence of each patient on them.

The error of a value is the sum of the contributions of patients. The same contributions give the
variance of a class's value, of a mean over classes and of the difference of two models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri, owens_t

from core.metrics.ap_auroc import Curve, FloatArray, IntArray, divide_known, mean_of_known

Patients = Sequence[Any] | NDArray[Any] | pd.Series

AP, AUROC = 0, 1
# maximum size of the table (parts of the patients x thresholds) for the bias of AP
CELLS = 4_000_000
LEAST_PARTS = 50
# the jackknife underestimates the bias of AP, which falls more slowly than 1 / patients
RAISED = 1.2
# weight, in patients, of the model variance; lower for AP, where the observed one is rarely small
MODEL_COUNTS, AP_COUNTS = 4.0, 1.0
# pseudo-patients with a value of one half, which keep values away from 0 and 1
ADDED = 0.05


@dataclass(frozen=True)
class Influence:
    """AP and AUROC (2) of C classes, and the contribution of each of K patients to their error.

    values: (2, C); NaN for a class without positives or negatives.
    moves: (2, K, C), decrease of a value without the patient; the sum of their squares estimates
        the variance of the value (jackknife).
    bias: (2, C), expected excess of a value (0 for AUROC).
    unseen: (2, C), variance that too few patients do not reveal.
    patients: (C,), number of patients with a positive.
    fewest: (C,), the smaller number of patients with a positive and with a negative.
    freedom: (C,), upper limit of the degrees of freedom of the variances.
    """

    values: FloatArray
    moves: FloatArray
    bias: FloatArray
    unseen: FloatArray
    patients: IntArray
    fewest: IntArray
    freedom: FloatArray

    def minus(self, other: "Influence") -> "Influence":
        """Difference to the values of another model on the same images."""
        moves = self.moves - other.moves
        single = (self.moves**2 + other.moves**2).sum(axis=1)
        # shared effects of two models cancel, also in the unseen variance
        shared = divide_known((moves**2).sum(axis=1), single)
        return Influence(
            values=self.values - other.values,
            moves=moves,
            bias=self.bias - other.bias,
            # of two perfect rankings nothing is seen at all
            unseen=np.where(np.isnan(shared), 1, shared) * (self.unseen + other.unseen),
            patients=self.patients,
            fewest=self.fewest,
            freedom=self.freedom,
        )


def cluster_indices(patients: Patients | None, images: int) -> IntArray:
    """Index of the patient of each image, (N,), in the order of patients' names.

    An image without a patient is a cluster of one, after these.
    """
    if patients is None:
        return np.arange(images, dtype=np.intp)
    names = pd.Series(list(patients), dtype=object)
    codes, known = pd.factorize(names.where(names.isna(), names.astype(str)), sort=True)
    missing = codes < 0
    codes[missing] = len(known) + np.arange(missing.sum())
    return codes.astype(np.intp)


def influence(
    labels: FloatArray, scores: FloatArray, clusters: IntArray, parts: int, seed: int
) -> Influence:
    """Measure each class for labels (N, C; NaN: unknown) and scores (N, C).

    clusters: (N,), index of the patient of each image. parts, seed: number (at least LEAST_PARTS)
    and random seed of the parts of patients that are left out in turn to estimate the bias of AP;
    0 parts: no estimate.
    """
    number, classes = int(clusters.max()) + 1, labels.shape[1]
    found = Influence(
        values=np.full((2, classes), np.nan),
        moves=np.zeros((2, number, classes)),
        bias=np.zeros((2, classes)),
        unseen=np.zeros((2, classes)),
        patients=np.zeros(classes, dtype=np.intp),
        fewest=np.zeros(classes, dtype=np.intp),
        freedom=np.zeros(classes),
    )
    order = np.random.default_rng(seed).permutation(number)
    for column in range(classes):
        known = ~np.isnan(labels[:, column])
        one = _Ranked.of(labels[known, column] == 1, scores[known, column], clusters[known])
        if len(one.curve.thresholds) and one.curve.negatives:
            _measure(found, column, one)
            found.bias[AP, column] = one.bias_of_ap(order, parts) if parts else 0.0
    return found


def _measure(found: Influence, column: int, one: "_Ranked") -> None:
    """Write all measures of a class except the bias."""
    values = one.curve.scores()
    found.values[:, column] = values
    pulls, sides = one.pulls(values), []
    for inside in (one.positive, ~one.positive):
        own, number = one.clusters[inside], found.moves.shape[1]
        images = np.bincount(own, minlength=number).astype(float)
        for moves, pull in zip(found.moves, pulls, strict=True):
            # weight of the other images without the patient; at least 1
            rest = np.maximum(len(own) - images, 1)
            moves[:, column] += np.bincount(own, weights=pull[inside], minlength=number) / rest
        sides.append((np.count_nonzero(images), len(own) ** 2 / (images**2).sum()))
    found.patients[column] = sides[0][0]
    found.fewest[column] = min(patients for patients, _ in sides)
    found.freedom[column] = min(equal for _, equal in sides) - 1
    seen = (found.moves[:, :, column] ** 2).sum(axis=1)
    found.unseen[:, column] = _unseen(values, seen, *zip(*sides, strict=True))


def _unseen(
    values: FloatArray, seen: FloatArray, patients: Sequence[int], equal: Sequence[float]
) -> FloatArray:
    """Missing variance of AP and AUROC, (2,), by simple models.

    For AP the variance of a proportion of the positives (Boyd 2013); for AUROC that of normal
    scores of equal spread: the probability that a positive ranks above both of two negatives, minus
    the square of the AUROC. patients, equal: of positives, then of negatives.
    """
    auroc = towards_half(values[AUROC], min(patients))
    upper = max(auroc, 1 - auroc)
    both = upper - 2 * owens_t(ndtri(upper), 1 / math.sqrt(3))
    model = (both - upper**2) * sum(1 / count for count in patients)
    share = towards_half(values[AP], patients[0])
    return np.array(
        [
            missing_variance(share * (1 - share) / patients[0], seen[AP], equal[0], AP_COUNTS),
            missing_variance(model, seen[AUROC], min(equal), MODEL_COUNTS),
        ]
    )


def towards_half(share: Any, patients: Any) -> Any:
    """Shrink a fraction of patients towards one half by ADDED pseudo-patients; any shape."""
    return (patients * share + ADDED / 2) / (patients + ADDED)


def missing_variance(model: Any, seen: Any, equal: Any, counts: float) -> Any:
    """Amount by which the variance `seen` is too small; any shape.

    A few patients near the top of a ranking seldom include one near its bottom, so that their
    variance is too small. It is averaged with the variance of a `model`, with the weight of
    `counts` patients against `equal`, the effective number of patients (equally many images each).
    """
    return np.maximum(model - seen, 0) * counts / (counts + equal)


@dataclass(frozen=True)
class _Ranked:
    """Images of one class with a known label, N."""

    positive: NDArray[np.bool_]  # (N,)
    scores: FloatArray  # (N,)
    clusters: IntArray  # (N,) numbers of patients
    curve: Curve
    place: IntArray  # (N,) number of steps of the curve above each image

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: FloatArray, clusters: IntArray) -> "_Ranked":
        curve = Curve.of(scores[positive], scores[~positive])
        above = np.searchsorted(curve.thresholds[::-1], scores, side="right")
        return cls(positive, scores, clusters, curve, len(curve.thresholds) - above)

    def pulls(self, values: FloatArray) -> FloatArray:
        """Derivatives (2, N) of AP and AUROC by the weight of each image.

        Multiplied by the number of positives or negatives. For AUROC these are the placement values
        minus their mean (DeLong 1988).
        """
        curve, place = self.curve, self.place
        hits, false = curve.hits, curve.false_positives
        true, positives, negatives = curve.true_positives, curve.positives, curve.negatives
        called = true + false
        changes = np.stack([hits * false, -hits * true]) / called**2
        # sums over the steps at or below an image; empty for an image below all steps
        raised, lowered = np.pad(changes[:, ::-1].cumsum(axis=1)[:, ::-1], ((0, 0), (0, 1)))
        step = np.minimum(place, len(hits) - 1)
        of_positive = (true / called)[step] - values[AP] + raised[place]
        ap = np.where(self.positive, of_positive, lowered[place] * negatives / positives)
        beaten = 1 - (false + curve.false_positives_above)[step] / 2 / negatives
        tied = np.where(self.scores == curve.thresholds[step], hits[step] / 2, 0)
        beating = (np.append(0, true)[place] + tied) / positives
        return np.stack([ap, np.where(self.positive, beaten, beating) - values[AUROC]])

    def bias_of_ap(self, order: IntArray, parts: int) -> float:
        """Bias of the AP by the jackknife (Quenouille 1956), leaving out parts of the patients.

        Patients are distributed in this order, those with positives first, so that each part has
        some of these.
        """
        steps = len(self.curve.thresholds)
        has = np.zeros(len(order), dtype=np.intp)
        has[self.clusters] = 1
        has[self.clusters[self.positive]] = 2
        # patients without a known label of the class come last, in no part
        ranked = order[np.argsort(-has[order], kind="stable")]
        patients = np.count_nonzero(has)
        parts = min(int(patients), max(parts, LEAST_PARTS), max(LEAST_PARTS, CELLS // steps))
        if parts < 2:
            return 0.0
        part = np.zeros(len(order), dtype=np.intp)
        part[ranked] = np.arange(len(order)) % parts
        cells = part[self.clusters] * (steps + 1) + self.place
        gone = [
            np.bincount(cells[inside], minlength=parts * (steps + 1)).reshape(parts, -1)[:, :-1]
            for inside in (self.positive, ~self.positive)
        ]
        hits = self.curve.hits - gone[0]
        true = hits.cumsum(axis=1)
        called = true + self.curve.false_positives - gone[1].cumsum(axis=1)
        total = (true / np.maximum(called, 1) * hits).sum(axis=1)
        without = mean_of_known(divide_known(total, true[:, -1]))[0]
        return float(RAISED * (parts - 1) * (without - self.curve.scores()[AP]))
