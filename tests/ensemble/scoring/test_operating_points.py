"""Operating points against scikit-learn, and their intervals against a loop over resamples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from core.errors import UserError
from core.metrics.bootstrap import cluster_indices, resampled_weights
from ensemble.predict.calibration import Calibration, Identity, Temperature, write_calibration
from ensemble.scoring.operating_points import operating_points, read_thresholds

NAMES = ["Effusion", "Nodule", "Hernia"]


def table(images: int = 200, levels: int | None = 12) -> tuple[np.ndarray, np.ndarray]:
    """Targets with unknown labels, and probabilities that are tied unless `levels` is None."""
    random = np.random.default_rng(5)
    targets = (random.random((images, 3)) < (0.4, 0.15, 0.06)).astype(float)
    probabilities = 1 / (1 + np.exp(-random.normal(size=targets.shape) - 1.5 * targets + 1))
    targets[random.random(targets.shape) < 0.1] = np.nan
    if levels is not None:
        probabilities = np.round(probabilities * levels) / levels
    return targets, probabilities


def points_of(y: np.ndarray, p: np.ndarray, threshold: float) -> list[float]:
    """Sensitivity, specificity and PPV of known labels by scikit-learn."""
    y, p = y[~np.isnan(y)], p[~np.isnan(y)]
    called = p >= threshold
    tn, fp, _, _ = confusion_matrix(y, called, labels=[0, 1]).ravel()
    missing = float("nan")
    return [
        recall_score(y, called, zero_division=missing),
        tn / (tn + fp) if tn + fp else missing,
        precision_score(y, called, zero_division=missing),
    ]


def best_threshold(y: np.ndarray, p: np.ndarray, sensitivity: float) -> float:
    """The highest score at which scikit-learn's recall is high enough, one by one."""
    known = ~np.isnan(y)
    for threshold in np.unique(p[known])[::-1]:
        if recall_score(y[known], p[known] >= threshold) >= sensitivity:
            return float(threshold)
    raise AssertionError


@pytest.mark.parametrize("levels", [None, 12])
@pytest.mark.parametrize("rule", [[0.5, 0.25, 1 / 3], 0.3, 0.9, 1.0], ids=str)
def test_points_agree_with_scikit_learn(levels: int | None, rule: list[float] | float) -> None:
    """At given thresholds, and at the highest that are sensitive enough."""
    targets, probabilities = table(images=80, levels=levels)
    pairs = zip(targets.T, probabilities.T, strict=True)
    at: Any = rule
    if isinstance(rule, list):
        at = thresholds = np.array(rule)
    else:
        thresholds = np.array([best_threshold(y, p, rule) for y, p in pairs])
    found = operating_points(targets, probabilities, NAMES, at, resamples=0)
    assert list(found) == ["positives", "threshold", "sensitivity", "specificity", "ppv"]
    for column, name in enumerate(NAMES):
        y, p = targets[:, column], probabilities[:, column]
        expected = [np.nansum(y), thresholds[column], *points_of(y, p, thresholds[column])]
        np.testing.assert_allclose(found.loc[name].to_numpy(float), expected, atol=1e-12)


def test_a_sensitivity_that_is_a_share_of_the_positives_is_reached() -> None:
    # 0.7 * 10 is more than 7 in floating point, and 0.29 * 100 less than 29
    for positives, hits in ((10, 7), (100, 29)):
        scores = np.linspace(0.9, 0.1, positives)[:, None]
        targets = np.vstack([np.ones((positives, 1)), [[0]]])
        found = operating_points(targets, np.vstack([scores, [[0]]]), ["A"], hits / positives)
        assert found.loc["A", "threshold"] == scores[hits - 1, 0]


def naive_samples(
    patients: np.ndarray | None, resamples: int, threshold_of: dict[int, float] | float
) -> np.ndarray:
    """Points (resamples, C, 3) of rows that are repeated as each resample draws them."""
    targets, probabilities = table()
    clusters = cluster_indices(patients, len(targets))
    weights = np.concatenate(list(resampled_weights(clusters, resamples, 7)))
    samples = np.full((resamples, 3, 3), np.nan)
    for row in range(resamples):
        drawn = np.repeat(np.arange(len(targets)), weights[row].astype(int))
        for column in range(3):
            y, p = targets[drawn, column], probabilities[drawn, column]
            if isinstance(threshold_of, dict):
                threshold = threshold_of[column]
            else:
                threshold = best_threshold(y, p, threshold_of)
            samples[row, column] = points_of(y, p, threshold)
    return samples


@pytest.mark.parametrize("known_patients", [True, False])
def test_intervals_agree_with_a_naive_loop(known_patients: bool) -> None:
    targets, probabilities = table()
    patients = np.random.default_rng(2).integers(0, 70, size=200) if known_patients else None
    thresholds = np.array([0.5, 0.25, 1 / 3])
    fixed = operating_points(targets, probabilities, NAMES, thresholds, patients, 15, 7)
    found = operating_points(targets, probabilities, NAMES, 0.8, patients, 15, 7)
    assert not np.allclose(fixed["ppv_low"], found["ppv_low"])
    for result, rule in ((fixed, dict(enumerate(thresholds))), (found, 0.8)):
        samples = naive_samples(patients, 15, rule)
        expected = np.nanquantile(samples, [0.025, 0.975], axis=0)
        for position, point in enumerate(("sensitivity", "specificity", "ppv")):
            bounds = result[[f"{point}_low", f"{point}_high"]].to_numpy().T
            np.testing.assert_allclose(bounds, expected[:, :, position], atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_nothing_to_divide_by_is_nan() -> None:
    nan = float("nan")
    targets = np.array([[0, 1, 1, nan, 1], [0, 1, 0, nan, 0], [0, 1, 0, nan, 0]])
    probabilities = np.array([[0.2, 0.6, 0.3, 0.5, 0.4], [0.8, 0.7, 0.2, 0.5, 0.1], [0.1] * 5])
    names = ["no positive", "no negative", "none called", "none known", "no threshold"]
    thresholds = np.array([0.5, 0.65, 0.9, 0.5, nan])
    for resamples in (0, 5):
        found = operating_points(targets, probabilities, names, thresholds, resamples=resamples)
        np.testing.assert_allclose(
            found[["sensitivity", "specificity", "ppv"]].to_numpy(),
            [[nan, 2 / 3, 0], [1 / 3, nan, 1], [0, 1, nan], [nan] * 3, [nan] * 3],
        )
        found = operating_points(targets, probabilities, names, 0.6, resamples=resamples)
        np.testing.assert_allclose(
            found[["threshold", "sensitivity", "specificity", "ppv"]].to_numpy(),
            [[nan] * 4, [0.6, 2 / 3, nan, 1], [0.3, 1, 1, 1], [nan] * 4, [0.4, 1, 1, 1]],
        )
    assert found["ppv_low"].isna().tolist() == [True, False, False, True, False]


def test_thresholds_are_one_number_or_those_of_a_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    classes = {
        "Nodule": Identity(threshold=0.2, threshold_gated=0.1),
        "Effusion": Temperature(2.0, threshold=0.4, threshold_gated=0.3),
        "Hernia": Identity(),
    }
    write_calibration(path, Calibration(classes, "Nodule", 0.5), {})
    assert read_thresholds("0.3", NAMES, gated=False).tolist() == [0.3] * 3
    for gated, expected in ((False, [0.4, 0.2, np.nan]), (True, [0.3, 0.1, np.nan])):
        found = read_thresholds(str(path), NAMES, gated=gated)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match=r"nothing for 1 of the 2 classes \(Mass\)"):
        read_thresholds(str(path), ["Nodule", "Mass"], gated=False)


@pytest.mark.parametrize("given", ["1.5", "nan", "no.json"])
def test_thresholds_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"--thresholds must lie within|no\.json cannot be read"):
        read_thresholds(given, NAMES, gated=False)


@pytest.mark.parametrize("sensitivity", [0, 1.01, float("nan")])
def test_a_sensitivity_that_is_none_is_refused(sensitivity: float) -> None:
    with pytest.raises(UserError, match="--sensitivity must be above 0 and at most 1"):
        operating_points(*table(), NAMES, sensitivity)
