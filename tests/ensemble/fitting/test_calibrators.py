"""Maps, thresholds and alpha against other libraries and written-out loops."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, f1_score, log_loss
from tqdm import tqdm

from ensemble.fitting import calibrators
from ensemble.fitting.calibrators import (
    ALPHAS,
    FITS,
    allowed_methods,
    best_alpha,
    best_threshold,
    choose_method,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from tests.helpers.synthetic.findings import table

FloatArray = NDArray[np.float64]


def drawn(seed: int, rows: int, slope: float = 1, offset: float = 0) -> tuple[FloatArray, ...]:
    """(targets, probabilities): sigmoid(slope logit(p) + offset) is the chance of a positive."""
    random = np.random.default_rng(seed)
    z = random.normal(-1, 2, size=rows)
    return (random.random(rows) < expit(slope * z + offset)).astype(float), expit(z)


def test_a_temperature_is_recovered_and_optimal() -> None:
    y, p = drawn(0, 40_000, slope=1 / 2.5)
    found = fit_temperature(y, p).temperature
    assert found == pytest.approx(2.5, rel=0.05)
    y, p = drawn(1, 300, slope=2)
    loss = lambda slope: log_loss(y, expit(slope * logit(p)))  # noqa: E731
    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}).x
    assert 1 / fit_temperature(y, p).temperature == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(("seed", "rows", "offset"), [(0, 200, -1), (1, 60, -2), (2, 1000, 3)])
def test_platt_has_the_least_loss_against_his_targets(seed: int, rows: int, offset: float) -> None:
    y, p = drawn(seed, rows, slope=0.7, offset=offset)
    positives, negatives = int(y.sum()), int((1 - y).sum())
    assert positives > 1
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    t = np.where(y == 1, high, low)
    found = fit_platt(y, p)

    # from another start by a method without gradients
    def loss(at: FloatArray) -> float:
        q = expit(at[0] * logit(p) + at[1])
        return float(-np.mean(t * np.log(q) + (1 - t) * np.log(1 - q)))

    other = minimize(loss, [3, 3], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    assert loss(np.array([found.slope, found.offset])) <= other.fun + 1e-9
    assert [found.slope, found.offset] == pytest.approx(other.x, rel=1e-4, abs=1e-4)


def test_isotonic_is_that_of_scikit_learn() -> None:
    y, p = drawn(0, 500)
    p = p.round(2)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, y)
    new = np.random.default_rng(1).random(1000)
    ends = np.array([0, 1, p.min(), p.max()])
    new = np.concatenate([new, p, ends])
    np.testing.assert_allclose(fit_isotonic(y, p).apply(new), model.predict(new), atol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_maps_rise_and_stay_within_0_and_1(name: str) -> None:
    """Of a class the wrong way round, and of constant and certain probabilities."""
    y, p = drawn(0, 400)
    half = np.repeat([0.0, 1.0], 10)
    for targets, given in (
        (1 - y, p),
        (half, np.full(20, 0.3)),
        (half, np.zeros(20)),
        (half, np.repeat([0.0, 1.0], 10)),
    ):
        calibrated = FITS[name](targets, given).apply(np.sort(given))
        assert (np.diff(calibrated) >= 0).all()
        assert ((calibrated >= 0) & (calibrated <= 1)).all()
        if given.std() == 0 and name in ("platt", "isotonic"):
            # no difference between images: the share of positives
            np.testing.assert_allclose(calibrated, 0.5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_best_f1(seed: int) -> None:
    y, p = drawn(seed, 60)
    p = p.round(1)
    known = np.random.default_rng(seed).random(60) < 0.8
    scores = {t: f1_score(y[known], p[known] >= t) for t in np.unique(p[known]) if t > 0}
    found = best_threshold(np.where(known, y, np.nan), p)
    assert found is not None
    assert found > 0
    assert scores[found] == pytest.approx(max(scores.values()))
    for one_kind in (0.0, 1.0, np.nan):
        assert best_threshold(np.full(60, one_kind), p) is None


@pytest.mark.parametrize("exclusive", [True, False])
def test_alpha_is_the_best_of_its_grid(exclusive: bool) -> None:
    problem = table(0, exclusive=exclusive)
    scores = []
    for alpha in (0, 0.1, 0.25, 0.5, 0.75, 1):
        gated = problem.probabilities[:, :3] * (1 - problem.probabilities[:, 3:]) ** alpha
        scores.append(average_precision_score(problem.targets[:, :3], gated, average="macro"))
    found = best_alpha(problem.targets, problem.probabilities, problem.class_names, "Normal")
    assert found == ALPHAS[int(np.argmax(scores))]
    assert (found > 0) == exclusive
    assert best_alpha(problem.targets, problem.probabilities, problem.class_names, None) == 0


@pytest.mark.parametrize(
    ("positives", "methods"), [(1, 1), (2, 3), (99, 3), (100, 4), (300, 4), (301, 3), (399, 1)]
)
def test_rare_classes_are_given_simple_maps(positives: int, methods: int) -> None:
    people = np.arange(400)
    y = (people < positives).astype(float)
    assert allowed_methods(y, people) == list(FITS)[:methods]
    # a patient counts once
    assert allowed_methods(np.repeat([1.0, 0.0], 20), np.repeat([0, 1, 2], [20, 10, 10])) == [
        "identity"
    ]


def test_classes_too_rare_for_a_map_are_listed() -> None:
    problem = table(1, rows=60)
    problem.targets[:, 1] = 0
    problem.targets[0, 1] = 1
    fitted = fit_calibration(problem, 2, 0, tqdm(disable=True))
    assert fitted.too_rare == [problem.class_names[1]]


def test_the_method_is_the_one_with_the_least_held_out_loss() -> None:
    methods = list(FITS)
    folds = np.arange(600) % 3
    expected = {"identity": (1, 0), "temperature": (0.3, 0), "platt": (0.4, -2.5)}
    for method, (slope, offset) in expected.items():
        y, p = drawn(2, 600, slope, offset)
        totals = {}
        for name in methods:
            parts = []
            for fold in range(3):
                fitted = FITS[name](y[folds != fold], p[folds != fold])
                q = fitted.apply(p[folds == fold]).clip(1e-6, 1 - 1e-6)
                parts.append(log_loss(y[folds == fold], q, normalize=False, labels=[0, 1]))
            totals[name] = sum(parts)
        assert choose_method(y, p, folds, methods) == min(totals, key=lambda name: totals[name])
        assert choose_method(y, p, folds, methods) == method
    # an S that no line in the logits makes
    y, p = drawn(0, 3000)
    bent = np.where(p < 0.3, p / 10, np.where(p > 0.6, 0.99, 0.9))
    assert choose_method(y, bent, np.arange(3000) % 3, methods) == "isotonic"
    # all positives in one fold: without it a fit would see none
    assert choose_method(np.repeat([1.0, 0.0], [10, 20]), p[:30], np.repeat([0, 1, 1], 10), methods)


class Remembering:
    """A map that gives 1 to what it was fitted on, and 0 to everything else."""

    def __init__(self, known: FloatArray) -> None:
        self.known = known

    def apply(self, probabilities: FloatArray) -> FloatArray:
        return np.isin(probabilities, self.known).astype(float)


def test_no_patient_is_fitted_on_and_held_out_in_the_choice_of_a_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = table(0, rows=60)
    # a probability is its patient's number
    p = np.repeat(np.arange(30), 2) / 30
    met: list[FloatArray] = []
    monkeypatch.setattr(calibrators, "FITS", {"platt": lambda y, p: Remembering(p)})

    def meeting(targets: FloatArray, calibrated: FloatArray) -> FloatArray:
        met.append(calibrated)
        return calibrated

    monkeypatch.setattr(calibrators, "log_losses", meeting)
    choose_method(problem.targets[:, 0], p, problem.folds(3, 0), ["platt", "platt"])
    assert sum(map(len, met)) == 2 * 60
    assert not np.concatenate(met).any()
