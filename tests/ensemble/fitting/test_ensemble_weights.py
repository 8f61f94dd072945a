"""Ensemble weights against brute force, loops and optimality; unbiased nested scores."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from core.errors import UserError
from ensemble.fitting import weights as selection
from ensemble.fitting.weights import (
    PROCEDURE,
    SINGLE_BEST,
    Pool,
    Scorer,
    greedy_selection,
    measure_gains,
    non_negative,
    select,
)

FloatArray = NDArray[np.float64]


def synthetic_pool(
    seed: int, images: int, noise: tuple[float, ...], classes: int = 4, unknown: float = 0.0
) -> Pool:
    """Models that see the same evidence through more or less noise.

    Probabilities are 64ths: they tie, and their sums are exact.
    """
    random = np.random.default_rng(seed)
    share = np.linspace(0.1, 0.4, classes)[:, None]
    targets = (random.random((classes, images)) < share).astype(float)
    evidence = 1.5 * targets - 1 + random.normal(size=targets.shape)
    seen = [evidence + strength * random.normal(size=targets.shape) for strength in noise]
    targets[random.random(targets.shape) < unknown] = np.nan
    return Pool((expit(np.stack(seen)) * 64).round() / 64, targets)


def by_sklearn(pool: Pool, scores: FloatArray, metric: Callable[..., float]) -> float:
    values = []
    for y, p in zip(pool.targets, scores, strict=True):
        known = ~np.isnan(y)
        if len(np.unique(y[known])) == 2:
            values.append(metric(y[known], p[known]))
    return float(np.mean(values))


def test_scores_are_those_of_scikit_learn() -> None:
    pool = synthetic_pool(0, 300, (0.5, 2), unknown=0.2)
    pool.targets[2] = np.where(np.isnan(pool.targets[2]), np.nan, 0)  # cannot be scored
    for scores in pool.predictions:
        for monitor, metric in (("mAP", average_precision_score), ("mAUROC", roc_auc_score)):
            expected = by_sklearn(pool, scores, metric)
            assert Scorer(pool.targets, monitor)(scores) == pytest.approx(expected, abs=1e-12)
    pool.targets[:] = 0
    assert np.isnan(Scorer(pool.targets, "mAP")(pool.predictions[0]))


def greedy_loop(pool: Pool, patience: int) -> FloatArray:
    """Caruana's forward selection, written out with scikit-learn's AP."""

    def score(bag: list[int]) -> float:
        total = np.sum([pool.predictions[model] for model in bag], axis=0)
        return by_sklearn(pool, total, average_precision_score)

    models = range(len(pool.predictions))
    ranked = sorted(models, key=lambda model: -score([model]))
    bag = max((ranked[:size] for size in range(1, len(ranked) + 1)), key=score)
    best = bag
    while len(bag) < min(len(best) + patience, 100):
        bag = max(([*bag, model] for model in models), key=score)
        if score(bag) > score(best):
            best = bag
    return np.bincount(best, minlength=len(pool.predictions)) / len(best)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_is_the_loop_written_out(seed: int) -> None:
    pool = synthetic_pool(seed, 120, (1, 1.2, 2), classes=2, unknown=0.1)
    expected = greedy_loop(pool, selection.PATIENCE)
    np.testing.assert_allclose(greedy_selection(pool, "mAP"), expected, atol=1e-12)


@pytest.mark.parametrize("noise", [(0.3, 0.4, 0.5), (0.3, 3, 3), (0.5, 0.5, 0.5, 0.5, 4)])
def test_non_negative_weights_are_optimal(noise: tuple[float, ...]) -> None:
    """For a mixture, d loss / d w_m = -mean(q_m / q): -1 where w_m > 0, not below -1 elsewhere."""
    pool = synthetic_pool(3, 500, noise, unknown=0.2)
    weights = non_negative(pool, "mAP")
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    y = pool.targets[~np.isnan(pool.targets)]
    p = np.stack([one[~np.isnan(pool.targets)] for one in pool.predictions])
    likelihoods = np.where(y == 1, p, 1 - p).clip(1e-6)
    slopes = (likelihoods / (weights @ likelihoods)).mean(axis=1)
    np.testing.assert_allclose(slopes[weights > 0], 1, atol=2e-3)
    assert (slopes[weights == 0] <= 1 + 2e-3).all()


def test_no_patient_is_fitted_on_and_held_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model m gives 1 to the images of patient m and 0 to others, and a spy weighs the patients
    that it sees: a held-out row is then the weight of its own patient, which must be 0."""
    people = np.repeat(np.arange(12), 3)
    random = np.random.default_rng(0)
    targets = (random.random((2, 36)) < 0.4).astype(float)
    own = (np.arange(12)[:, None] == people).astype(float)  # (models, images)
    pool = Pool(np.repeat(own[:, None], 2, axis=1), targets)
    seen = []

    def spy(part: Pool, monitor: str) -> FloatArray:
        there = part.predictions[:, 0].any(axis=1)
        seen.append(int(there.sum()))
        return there / there.sum()

    looked_at: list[FloatArray] = []
    monkeypatch.setattr(selection, "STRATEGIES", {SINGLE_BEST: spy, "spy": spy})
    best = selection._best

    def remembering(blends: dict[str, FloatArray], score: Scorer) -> str:
        looked_at.extend(blends.values())
        return best(blends, score)

    monkeypatch.setattr(selection, "_best", remembering)
    monkeypatch.setattr(selection, "ranks", lambda blend, axis: blend)
    patients = np.array([f"p{one}" for one in people], dtype=object)
    found = select(pool, patients, "mAP", folds=4, seed=0)
    # inner choices, outer choices and what is reported
    assert len(looked_at) == 2 * (4 + 1)
    for blend in (*looked_at, *found.held_out.values(), found.procedure):
        assert not blend.any()
    # 4 outer folds of 3 patients; within the 9 others 4 inner folds; at last everyone
    assert seen.count(9) == 2 * 4
    assert seen.count(12) == 2
    assert len(seen) == 2 * (4 * 5 + 1)
    # the very same weights are not 0 on their own rows
    assert pool.blend(found.weights["spy"]).all()


def test_folds_that_choose_runs_of_other_scales_are_not_ranked_together_at_random() -> None:
    """Two runs that rank alike, one of them with halved probabilities: whichever of them a
    fold takes, no image changes its place."""
    pool = synthetic_pool(6, 200, (1,))
    pool = Pool(np.concatenate([pool.predictions, pool.predictions / 2]), pool.targets)
    takes = iter([0, 1] * 20)

    def either(part: Pool, monitor: str) -> FloatArray:
        return np.eye(2)[next(takes)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "STRATEGIES", {SINGLE_BEST: either})
        found = select(pool, None, "mAP", folds=4, seed=0)
    score = by_sklearn(pool, pool.predictions[0], average_precision_score)
    for one in (found.held_out[SINGLE_BEST], found.procedure):
        expected = pytest.approx(score, abs=1e-12)
        assert by_sklearn(pool, one, average_precision_score) == expected


def test_gains_are_scores_and_their_differences() -> None:
    pool = synthetic_pool(4, 150, (0.5, 1, 2), classes=3, unknown=0.1)
    patients = np.array([f"p{number // 2}" for number in range(150)], dtype=object)
    found = select(pool, patients, "mAP", folds=3, seed=0)
    names = ["a", "b", "c"]
    gains = measure_gains(pool, found, names, patients, seed=0)
    held_out = {**found.held_out, PROCEDURE: found.procedure}
    for metric, of in (("mAP", average_precision_score), ("mAUROC", roc_auc_score)):
        for name, blend in held_out.items():
            score = by_sklearn(pool, blend, of)
            assert gains[name].held_out.summary[metric] == pytest.approx(score, abs=1e-9)
            low, high = gains[name].held_out.summary["intervals"][metric]
            assert low < score < high
            if name != SINGLE_BEST:
                difference = gains[name].over_single_best
                assert difference is not None
                single = by_sklearn(pool, found.held_out[SINGLE_BEST], of)
                expected = pytest.approx(score - single, abs=1e-9)
                assert difference.summary[metric] == expected
        for name, weights in found.weights.items():
            score = by_sklearn(pool, pool.blend(weights), of)
            assert gains[name].own_rows[metric] == pytest.approx(score, abs=1e-9)


def test_one_model_alone_and_what_cannot_be_scored() -> None:
    alone = select(synthetic_pool(0, 60, (1,), classes=2), None, "mAP", folds=3, seed=0)
    assert alone.chosen == SINGLE_BEST
    assert all(weights.tolist() == [1] for weights in alone.weights.values())
    pool = synthetic_pool(0, 30, (1, 2))
    with pytest.raises(UserError, match="nothing can be scored"):
        select(Pool(pool.predictions, np.zeros_like(pool.targets)), None, "mAP", 3, 0)
    people = np.array(["a", "b"] * 15, dtype=object)
    with pytest.raises(UserError, match="only 2 patients"):
        select(pool, people, "mAP", 3, 0)
