"""Ensemble weights fitted to out-of-fold predictions, and their gain on held-out patients.

Each strategy, and the choice among them, is scored by nested cross-validation over patients
(Varma & Simon 2006). As folds may choose runs of different scales, a held-out image
counts by its rank among all images under the weights of its fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from core.data.splits.folds import assign_folds
from core.errors import UserError
from core.metrics import Evaluation, PairedDifference, evaluate, paired_difference
from core.metrics.ap_auroc import Curve
from core.runtime.progress_bar import ProgressBar
from ensemble.predict.calibration import SMALLEST
from ensemble.predict.merge import ranks

FloatArray = NDArray[np.float64]

METRICS = ("mAP", "mAUROC")
# greedy selection ends after PATIENCE picks without a better score, at most at LARGEST_BAG picks
PATIENCE = 5
LARGEST_BAG = 100
# a smaller weight changes no written probability
SMALLEST_SHARE = 1e-4


@dataclass(frozen=True, eq=False)
class Pool:
    """Predictions of M models for the same N images, and their labels, contiguous by class.

    predictions: probabilities (M, C, N). targets: (C, N) of 1, 0 and NaN (unknown).
    """

    predictions: FloatArray
    targets: NDArray[np.floating]

    def part(self, rows: NDArray[np.bool_]) -> "Pool":
        """Subset of the images, `rows` bool (N,)."""
        return Pool(self.predictions[:, :, rows], self.targets[:, rows])

    def blend(self, weights: FloatArray) -> FloatArray:
        """Mean (C, N) of the models' probabilities by `weights` (M,), which sum to 1."""
        return np.tensordot(weights, self.predictions, axes=1)


class Scorer:
    """Macro AP or AUROC, as in `core.metrics.evaluate`, for many predictions of the same labels."""

    def __init__(self, targets: NDArray[np.floating], monitor: str) -> None:
        """targets: (C, N) of 1, 0 and NaN; monitor: mAP or mAUROC."""
        self._metric = METRICS.index(monitor)
        # classes with positives and negatives
        places = [(np.flatnonzero(row == 1), np.flatnonzero(row == 0)) for row in targets]
        self._places = [(c, *pair) for c, pair in enumerate(places) if all(map(len, pair))]

    def __call__(self, scores: FloatArray) -> float:
        """Mean of (C, N) scores over classes with positives and negatives; NaN without any."""
        values = [
            Curve.of(scores[c][positive], scores[c][negative]).scores()[self._metric]
            for c, positive, negative in self._places
        ]
        return float(np.mean(values)) if values else float("nan")


def single_best(pool: Pool, monitor: str) -> FloatArray:
    """Weight 1 on the model with the best score, (M,)."""
    score = Scorer(pool.targets, monitor)
    return np.eye(len(pool.predictions))[int(np.argmax([score(one) for one in pool.predictions]))]


def equal_mean(pool: Pool, monitor: str) -> FloatArray:
    """Equal weights, (M,)."""
    return np.full(len(pool.predictions), 1 / len(pool.predictions))


def greedy_selection(pool: Pool, monitor: str) -> FloatArray:
    """Forward selection with replacement and sorted initialisation (Caruana 2004), (M,).

    The bag starts with the k best models, for the k with the best score. Then the model that
    improves the score most is added, until PATIENCE picks in a row bring no better score.
    """
    score = Scorer(pool.targets, monitor)
    alone = np.array([score(one) for one in pool.predictions])
    order = np.argsort(-alone, kind="stable")
    totals = np.cumsum(pool.predictions[order], axis=0)
    starts = [score(total) for total in totals]  # ranks are those of the means
    size = int(np.argmax(starts)) + 1
    total, counts = totals[size - 1], np.zeros(len(pool.predictions))
    counts[order[:size]] = 1
    best, best_counts, waited = starts[size - 1], counts.copy(), 0
    while waited < PATIENCE and counts.sum() < LARGEST_BAG:
        candidates = [score(total + one) for one in pool.predictions]
        pick = int(np.argmax(candidates))
        total, waited = total + pool.predictions[pick], waited + 1
        counts[pick] += 1
        if candidates[pick] > best:
            best, best_counts, waited = candidates[pick], counts.copy(), 0
    return best_counts / best_counts.sum()


def non_negative(pool: Pool, monitor: str) -> FloatArray:
    """Weights on the simplex with the lowest log loss of the blend (convex), (M,)."""
    known = ~np.isnan(pool.targets)
    y = pool.targets[known]
    p = pool.predictions[:, known]  # (M, known labels)
    likelihoods = np.maximum(np.where(y == 1, p, 1 - p), SMALLEST)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        mixed = weights @ likelihoods
        return float(-np.log(mixed).mean()), -(likelihoods @ (1 / mixed)) / len(y)

    found = minimize(
        loss,
        equal_mean(pool, monitor),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * len(pool.predictions),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    weights = np.where(found.x < SMALLEST_SHARE, 0, found.x)
    return weights / weights.sum()


SINGLE_BEST = "single best"
PROCEDURE = "whole procedure"
# of equal scores the first strategy is chosen
STRATEGIES: dict[str, Callable[[Pool, str], FloatArray]] = {
    SINGLE_BEST: single_best,
    "equal mean": equal_mean,
    "greedy": greedy_selection,
    "non-negative": non_negative,
}


@dataclass(frozen=True, eq=False)
class Selection:
    """Result of `select`.

    Arrays (C, N) are `ranks` of every image under weights that were fitted without its patient's
    fold.

    weights: strategy → (M,) with sum 1, fitted on all rows.
    held_out: strategy → (C, N).
    chosen: strategy with the best held-out score.
    procedure: (C, N), with the strategy chosen without the patient's fold too.
    picks: strategy chosen in each outer fold.
    """

    weights: Mapping[str, FloatArray]
    held_out: Mapping[str, FloatArray]
    chosen: str
    procedure: FloatArray
    picks: Sequence[str]


def select(
    pool: Pool, patients: NDArray[np.object_] | None, monitor: str, folds: int, seed: int
) -> Selection:
    """Fit every strategy, choose one, and rank held-out images by nested cross-validation.

    monitor: mAP or mAUROC. patients: (N,), or None to split by image. In each outer fold an inner
    cross-validation over the other patients picks the strategy; the final choice has the best
    held-out score. Raises UserError if no class can be scored, or there are fewer patients than
    folds.
    """
    score = Scorer(pool.targets, monitor)
    if np.isnan(score(pool.predictions[0])):
        raise UserError("no class has both positive and negative labels: nothing can be scored")
    outer = assign_folds(pool.targets.T, patients, folds, seed)
    procedure = np.empty(pool.targets.shape)
    picks: list[str] = []
    with ProgressBar(total=folds * (folds + 1) + 1, desc="fitting weights", disable=None) as bar:
        held_out = _held_out(pool, outer, monitor, bar)
        for fold in range(folds):
            inside = outer != fold
            training = pool.part(inside)
            people = None if patients is None else patients[inside]
            inner = assign_folds(training.targets.T, people, folds, seed)
            inner_ranks = _held_out(training, inner, monitor, bar)
            picks.append(_best(inner_ranks, Scorer(training.targets, monitor)))
            procedure[:, ~inside] = held_out[picks[-1]][:, ~inside]
        final = _fit(pool, monitor, bar)
    return Selection(final, held_out, _best(held_out, score), procedure, picks)


@dataclass(frozen=True, eq=False)
class Gain:
    """Scores of a strategy, or of PROCEDURE, which chooses a strategy in each fold."""

    held_out: Evaluation  # weights fitted on other patients
    over_single_best: PairedDifference | None  # held-out too; None for the single best run
    own_rows: Mapping[str, float]  # metric → score on the rows of the fit (optimistic)


def measure_gains(
    pool: Pool,
    selection: Selection,
    class_names: Sequence[str],
    patients: NDArray[np.object_] | None,
    seed: int,
) -> dict[str, Gain]:
    """Gain of each way to weight the models over the best single one, with patient intervals.

    patients: (N,) or None; class_names: C. Returns the gains by name, PROCEDURE last.
    """
    targets, single = pool.targets.T, selection.held_out[SINGLE_BEST].T
    scorers = {metric: Scorer(pool.targets, metric) for metric in METRICS}
    how: dict[str, Any] = {"patients": patients, "seed": seed}
    gains = {}
    held_out = {**selection.held_out, PROCEDURE: selection.procedure}
    for name, one in ProgressBar(held_out.items(), desc="intervals", disable=None):
        found, difference, own_rows = evaluate(targets, one.T, class_names, **how), None, {}
        if name != SINGLE_BEST:
            difference = paired_difference(targets, one.T, single, class_names, **how)
        if name in selection.weights:
            blend = pool.blend(selection.weights[name])
            own_rows = {metric: score(blend) for metric, score in scorers.items()}
        gains[name] = Gain(found, difference, own_rows)
    return gains


def _fit(pool: Pool, monitor: str, bar: ProgressBar) -> dict[str, FloatArray]:
    bar.update()
    return {name: fit(pool, monitor) for name, fit in STRATEGIES.items()}


def _held_out(
    pool: Pool, assignment: NDArray[np.int64], monitor: str, bar: ProgressBar
) -> dict[str, FloatArray]:
    """`ranks` (C, N) by strategy, of each fold under weights fitted on the other folds."""
    found = {name: np.empty(pool.targets.shape) for name in STRATEGIES}
    for fold in range(int(assignment.max()) + 1):
        outside = assignment == fold
        for name, fitted in _fit(pool.part(~outside), monitor, bar).items():
            found[name][:, outside] = ranks(pool.blend(fitted), axis=1)[:, outside]
    return found


def _best(held_out: Mapping[str, FloatArray], score: Scorer) -> str:
    """The first strategy with the best score."""
    return max(held_out, key=lambda name: score(held_out[name]))
