"""Calibration fitting: a map and thresholds for each class, and alpha of normal gating.

A map is chosen by cross-validated log loss. Probabilities are clipped to [1e-6, 1 - 1e-6] before
a logarithm, which limits the log loss of an entry to 14.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from core.data.splits.folds import assign_folds
from core.errors import UserError
from core.metrics.ap_auroc import Curve
from ensemble.fitting.weights import Scorer
from ensemble.predict.calibration import (
    SMALLEST,
    Calibration,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    logit,
    normal_gating,
)
from ensemble.predict.merge import ranks

FloatArray = NDArray[np.float64]

ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
# Fewest positive patients, and fewest negative ones, for a method. By simulation (excess log loss):
# with 2 positives of 100 images Platt costs 0.001, and saves 0.4 if training had shifted the
# logits; isotonic costs up to 0.04 with 5 to 8 positives and is better from 100 on.
FEWEST = {"identity": 0, "temperature": 2, "platt": 2, "isotonic": 100}
# a slope stays positive: a map never reverses the ranking of a class
SMALLEST_SLOPE = 1e-3
LARGEST_SLOPE = 1e3


def fit_temperature(targets: FloatArray, probabilities: FloatArray) -> Temperature:
    """sigmoid(logit(p) / T) with the lowest log loss (Guo et al. 2017), T from 1e-3 to 1e3.

    targets: (N,) of 0 and 1; probabilities p: (N,). The loss is convex in 1 / T, so its slope has
    one root.
    """
    z = logit(probabilities)

    def gradient(log_slope: float) -> float:
        return float(np.mean((expit(np.exp(log_slope) * z) - targets) * z))

    low, high = np.log(SMALLEST_SLOPE), np.log(LARGEST_SLOPE)
    if gradient(low) >= 0:
        log_slope = low
    elif gradient(high) <= 0:
        log_slope = high
    else:
        log_slope = brentq(gradient, low, high, xtol=1e-12)
    return Temperature(float(np.exp(-log_slope)))


def fit_platt(targets: FloatArray, probabilities: FloatArray) -> Platt:
    """sigmoid(a logit(p) + b) with the lowest log loss for Platt's targets, by scikit-learn.

    targets: (N,) of 0 and 1; probabilities p: (N,). For N+ positives and N- negatives Platt (1999)
    takes (N+ + 1) / (N+ + 2) for 1 and 1 / (N- + 2) for 0. a lies within 1e-3 and 1e3.
    """
    positives = float(targets.sum())
    negatives = len(targets) - positives
    y = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    z = logit(probabilities)
    centre, spread = float(z.mean()), max(float(z.std()), SMALLEST)
    # an image of target y is a positive of weight y and a negative of weight 1 - y
    features = np.tile((z - centre) / spread, 2)[:, None]
    kinds, weights = np.repeat([1, 0], len(y)), np.concatenate([y, 1 - y])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features, kinds, weights)
    slope, offset = float(model.coef_[0, 0]) / spread, float(model.intercept_[0])
    if not SMALLEST_SLOPE <= slope <= LARGEST_SLOPE:
        slope = min(max(slope, SMALLEST_SLOPE), LARGEST_SLOPE)
        offset = float(logit(y.mean()))
    return Platt(slope, offset - slope * centre)


def fit_isotonic(targets: FloatArray, probabilities: FloatArray) -> Isotonic:
    """Isotonic regression of targets (N,), 0 or 1, on probabilities (N,): Zadrozny & Elkan 2002."""
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probabilities, targets)
    values = np.maximum.accumulate(fitted.y_thresholds_)  # equal up to the last bit
    return Isotonic(fitted.X_thresholds_.tolist(), values.tolist())


# of equal losses the first method is chosen
FITS: dict[str, Callable[[FloatArray, FloatArray], Identity]] = {
    "identity": lambda targets, probabilities: Identity(),
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def log_losses(targets: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Log loss of each entry; NaN for an unknown target (NaN). All of one shape, any."""
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    losses = -np.where(targets == 1, np.log(p), np.log1p(-p))
    return np.where(np.isnan(targets), np.nan, losses)


def best_threshold(targets: FloatArray, probabilities: FloatArray) -> float | None:
    """Highest threshold above 0 with the best F1 for targets (N,) of 1, 0 and NaN; None for none.

    probabilities: (N,). "Positive" is probability >= threshold; a threshold of 0 would make all
    images positive.
    """
    curve = Curve.of(probabilities[targets == 1], probabilities[targets == 0])
    usable = curve.thresholds > 0
    if not usable.any() or not curve.negatives:
        return None
    return float(curve.thresholds[np.where(usable, curve.f1(), -1).argmax()])


def best_alpha(
    targets: FloatArray, calibrated: FloatArray, class_names: Sequence[str], normal: str | None
) -> float:
    """The smallest of ALPHAS with the best mAP of the classes but `normal`; 0 without `normal`.

    targets: (N, C) of 1, 0 and NaN; calibrated: probabilities (N, C).
    """
    if normal is None:
        return 0.0
    others = [column for column, name in enumerate(class_names) if name != normal]
    score = Scorer(targets.T[others], "mAP")
    gated = (normal_gating(calibrated, class_names, normal, alpha) for alpha in ALPHAS)
    return ALPHAS[int(np.argmax([score(one.T[others]) for one in gated]))]


@dataclass(frozen=True, eq=False)
class Problem:
    """Predictions to calibrate.

    targets: (N, C) of 1, 0 and NaN (unknown). probabilities: (N, C). patients: (N,), or None to
    split by image. normal: name of the normal class, which gates the others, or None.
    """

    targets: FloatArray
    probabilities: FloatArray
    class_names: tuple[str, ...]
    patients: NDArray[np.object_] | None
    normal: str | None

    def part(self, rows: NDArray[np.bool_]) -> "Problem":
        """Subset of the images, `rows` bool (N,)."""
        y, p = self.targets[rows], self.probabilities[rows]
        patients = None if self.patients is None else self.patients[rows]
        return replace(self, targets=y, probabilities=p, patients=patients)

    def folds(self, folds: int, seed: int) -> NDArray[np.int64]:
        """Fold of each image, (N,), by patient. Raises UserError for too few patients."""
        return assign_folds(self.targets, self.patients, folds, seed)


def fit_calibration(problem: Problem, folds: int, seed: int, bar: tqdm) -> Calibration:
    """Choose each class's map by cross-validation over patients, and fit all on all rows.

    Also fits the thresholds of best F1 before and after gating, and alpha of normal gating. Raises
    UserError if there are fewer patients than folds. `bar` is updated once a class.
    """
    assignment = problem.folds(folds, seed)
    patients = np.arange(len(assignment)) if problem.patients is None else problem.patients
    maps, too_rare = {}, []
    for column, name in enumerate(problem.class_names):
        known = ~np.isnan(problem.targets[:, column])
        y, p = problem.targets[known, column], problem.probabilities[known, column]
        methods = allowed_methods(y, patients[known])
        too_rare += [name] if methods == ["identity"] else []
        maps[name] = FITS[choose_method(y, p, assignment[known], methods)](y, p)
        bar.update()
    names, normal = problem.class_names, problem.normal
    calibrated = Calibration(maps, normal, 0).apply(problem.probabilities, names)
    alpha = best_alpha(problem.targets, calibrated, names, normal)
    gated = Calibration(maps, normal, alpha).gate(calibrated, names)
    for column, name in enumerate(names):
        maps[name] = msgspec.structs.replace(
            maps[name],
            threshold=best_threshold(problem.targets[:, column], calibrated[:, column]),
            threshold_gated=best_threshold(problem.targets[:, column], gated[:, column]),
        )
    return Calibration(maps, normal, alpha, too_rare)


def allowed_methods(targets: FloatArray, patients: NDArray[Any]) -> list[str]:
    """Methods of FITS with enough positive and negative patients (FEWEST), simplest first.

    targets: (N,) of 0 and 1; patients: (N,).
    """
    fewer = min(len(np.unique(patients[targets == kind])) for kind in (0, 1))
    return [method for method, fewest in FEWEST.items() if fewer >= fewest]


def choose_method(
    targets: FloatArray,
    probabilities: FloatArray,
    assignment: NDArray[np.int64],
    methods: Sequence[str],
) -> str:
    """The first of `methods` with the lowest cross-validated log loss.

    targets: (N,) of 0 and 1; probabilities: (N,); assignment: (N,), fold of each row. The first if
    the training part of a fold lacks positives or negatives.
    """
    folds = np.unique(assignment)
    kinds = (len(np.unique(targets[assignment != fold])) for fold in folds)
    if len(methods) == 1 or min(kinds) < 2:
        return methods[0]

    def loss(method: str) -> float:
        total = 0.0
        for fold in folds:
            inside, rest = assignment != fold, assignment == fold
            fitted = FITS[method](targets[inside], probabilities[inside])
            total += float(log_losses(targets[rest], fitted.apply(probabilities[rest])).sum())
        return total

    return min(methods, key=loss)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Cross-validated results (N, C) by stage: BEFORE, CALIBRATED and GATED.

    called: True if the probability reaches the fitted threshold. alphas: alpha of each fold. An
    image's rank, divided by N, is among all images under the maps of its fold: probabilities of
    folds with different maps cannot be ranked together.
    """

    probabilities: dict[str, FloatArray]
    ranks: dict[str, FloatArray]
    called: dict[str, NDArray[np.bool_]]
    alphas: list[float]


BEFORE, CALIBRATED, GATED = "before", "calibrated", "gated"


def held_out(problem: Problem, folds: int, seed: int, bar: tqdm) -> OutOfFold:
    """Cross-validate `fit_calibration` over folds of patients.

    Raises UserError if no class can be scored, or there are fewer patients than folds.
    """
    if np.isnan(Scorer(problem.targets.T, "mAP")(problem.probabilities.T)):
        raise UserError("no class has both positive and negative labels: nothing can be scored")
    assignment = problem.folds(folds, seed)
    shape, names, stages = problem.targets.shape, problem.class_names, (BEFORE, CALIBRATED, GATED)
    tested = OutOfFold(
        probabilities={stage: np.empty(shape) for stage in stages},
        ranks={stage: np.empty(shape) for stage in stages},
        called={stage: np.empty(shape, dtype=bool) for stage in stages},
        alphas=[],
    )
    for fold in range(folds):
        inside, outside = problem.part(assignment != fold), assignment == fold
        fitted = fit_calibration(inside, folds, seed, bar)
        calibrated = fitted.apply(problem.probabilities, names)
        gated = fitted.gate(calibrated, names)
        own = [*map(best_threshold, inside.targets.T, inside.probabilities.T)]
        found = {
            BEFORE: (problem.probabilities, np.array(own, dtype=float)),
            CALIBRATED: (calibrated, fitted.thresholds(names, gated=False)),
            GATED: (gated, fitted.thresholds(names, gated=True)),
        }
        for stage, (values, thresholds) in found.items():
            tested.probabilities[stage][outside] = values[outside]
            tested.ranks[stage][outside] = ranks(values)[outside]
            tested.called[stage][outside] = values[outside] >= thresholds
        tested.alphas.append(fitted.normal_alpha)
    return tested
