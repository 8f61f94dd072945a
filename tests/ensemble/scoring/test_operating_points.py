"""Operating points against scikit-learn, and their intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from core.errors import UserError
from core.metrics.intervals import share_intervals
from ensemble.predict.calibration import Calibration, Identity, Temperature, write_calibration
from ensemble.scoring.operating_points import (
    POINTS,
    TargetPoint,
    operating_points,
    read_thresholds,
)

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
    """POINTS of known labels by scikit-learn."""
    y, p = y[~np.isnan(y)], p[~np.isnan(y)]
    called = p >= threshold
    tn, fp, _, _ = confusion_matrix(y, called, labels=[0, 1]).ravel()
    missing = float("nan")
    return [
        recall_score(y, called, zero_division=missing),
        tn / (tn + fp) if tn + fp else missing,
        precision_score(y, called, zero_division=missing),
        precision_score(1 - y, ~called, zero_division=missing),
    ]


def best_threshold(y: np.ndarray, p: np.ndarray, at: TargetPoint) -> float:
    """The first score, from the top or from the bottom, where scikit-learn's share is enough."""
    known = ~np.isnan(y)
    thresholds = np.unique(p[known])
    high = at.point == "sensitivity"
    for threshold in thresholds[::-1] if high else thresholds:
        share = points_of(y, p, threshold)[0 if high else 1]
        if share >= at.least:
            return float(threshold)
    return float(np.nextafter(thresholds[-1], 2))


RULES = [[0.5, 0.25, 1 / 3], *(TargetPoint("sensitivity", least) for least in (0.3, 0.9, 1.0))]
RULES += [TargetPoint("specificity", least) for least in (0.3, 0.9, 1.0)]


@pytest.mark.parametrize("levels", [None, 12])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_points_agree_with_scikit_learn(levels: int | None, rule: Any) -> None:
    """At given thresholds, and at those that are sensitive or specific enough."""
    targets, probabilities = table(images=80, levels=levels)
    pairs = zip(targets.T, probabilities.T, strict=True)
    at: Any = rule
    if isinstance(rule, list):
        at = thresholds = np.array(rule)
    else:
        thresholds = np.array([best_threshold(y, p, rule) for y, p in pairs])
    found = operating_points(targets, probabilities, NAMES, at, intervals=False)
    assert list(found) == ["positives", "threshold", *POINTS]
    for column, name in enumerate(NAMES):
        y, p = targets[:, column], probabilities[:, column]
        expected = [np.nansum(y), thresholds[column], *points_of(y, p, thresholds[column])]
        np.testing.assert_allclose(found.loc[name].to_numpy(float), expected, atol=1e-12)


def test_a_sensitivity_that_is_a_share_of_the_positives_is_reached() -> None:
    # 0.7 * 10 is more than 7 in floating point, and 0.29 * 100 less than 29
    for positives, hits in ((10, 7), (100, 29)):
        scores = np.linspace(0.9, 0.1, positives)[:, None]
        targets = np.vstack([np.ones((positives, 1)), [[0]]])
        at = TargetPoint("sensitivity", hits / positives)
        found = operating_points(targets, np.vstack([scores, [[0]]]), ["A"], at)
        assert found.loc["A", "threshold"] == scores[hits - 1, 0]


def test_the_variance_is_that_of_leaving_out_each_patient() -> None:
    """By the width of an interval of a share near one half, where its logit is nearly linear."""
    targets, probabilities = table(images=2000)
    patients = np.random.default_rng(2).integers(0, 700, size=2000)
    thresholds = np.array([0.5, 0.25, 1 / 3])
    found = operating_points(targets, probabilities, NAMES, thresholds, patients)
    y, p = targets[:, 0], probabilities[:, 0]
    value = points_of(y, p, 0.5)[0]
    without = [points_of(y[patients != one], p[patients != one], 0.5)[0] for one in range(700)]
    error = np.sqrt(((np.array(without) - value) ** 2).sum()) / (value * (1 - value))
    bounds = found.loc[["Effusion"], ["sensitivity_low", "sensitivity_high"]]
    low, high = bounds.to_numpy(dtype=float)[0]
    width = np.log(high / (1 - high)) - np.log(low / (1 - low))
    assert width == pytest.approx(2 * 1.96 * error, rel=0.03)


def test_a_chosen_threshold_promises_less_than_it_shows() -> None:
    """The interval is that of the printed threshold; how the threshold varies stands beside it."""
    targets, probabilities = table(images=600, levels=None)
    at = TargetPoint("sensitivity", 0.8)
    chosen = operating_points(targets, probabilities, NAMES, at)
    thresholds = chosen["threshold"].to_numpy()
    fixed = operating_points(targets, probabilities, NAMES, thresholds)
    assert (chosen["sensitivity"] == fixed["sensitivity"]).all()
    assert (chosen["sensitivity_low"] < fixed["sensitivity"]).all()
    assert (chosen["sensitivity_low"] < 0.8).all()
    for name in ("specificity_low", "ppv_high"):
        np.testing.assert_array_equal(chosen[name], fixed[name])
    assert (chosen["threshold_low"] < chosen["threshold"]).all()
    assert (chosen["threshold"] < chosen["threshold_high"]).all()
    wide = chosen["specificity_at_sensitivity_high"] - chosen["specificity_at_sensitivity_low"]
    assert (wide > chosen["specificity_high"] - chosen["specificity_low"]).all()
    # of n positives the share that the kth reaches on others has a beta distribution
    positives = (targets[:, 0] == 1).sum()
    reached = round(chosen["sensitivity"].iloc[0] * positives)
    exact = beta.ppf([0.025, 0.975], reached, positives + 1 - reached)
    columns = ["sensitivity_low", "sensitivity_high"]
    np.testing.assert_allclose(chosen[columns].to_numpy()[0], exact)
    # no positive lies beyond the last one
    every = operating_points(targets, probabilities, NAMES, TargetPoint("sensitivity", 1.0))
    assert every["threshold_low"].isna().all()
    other = operating_points(targets, probabilities, NAMES, TargetPoint("specificity", 0.8))
    assert other["sensitivity_at_specificity_low"].notna().all()


def test_fewer_than_ten_patients_have_no_interval() -> None:
    right, clusters = np.ones((40, 2), dtype=bool), np.arange(40) // 2
    right[30:, 0] = False
    among = np.ones((40, 2), dtype=bool)
    among[18:, 1] = False
    shares, bounds = share_intervals(right, among, clusters)
    assert shares.tolist() == [0.75, 1]
    assert np.isnan(bounds).tolist() == [[False, True]] * 2


def test_a_share_of_all_lies_within_its_interval_where_it_was_chosen() -> None:
    every = np.ones((30, 1), dtype=bool)
    (share,), ((low,), (high,)) = share_intervals(every, every, np.arange(30), chosen=True)
    assert (share, high) == (1, 1)
    np.testing.assert_allclose(low, 0.025 ** (1 / 30))


def test_a_predictive_value_rests_on_the_patients_of_the_rarer_outcome() -> None:
    """Of one image each it is Jeffreys' interval; of several only from a hundred patients on."""
    right, every = np.arange(1000)[:, None] >= 6, np.ones((1000, 1), dtype=bool)
    _, single = share_intervals(right, every, np.arange(1000), rare=True)
    np.testing.assert_allclose(single[:, 0], beta.ppf([0.025, 0.975], 994.5, 6.5))
    _, few = share_intervals(right, every, np.r_[5, np.arange(5, 1004)[:999]], rare=True)
    assert np.isnan(few).all()
    _, none = share_intervals(every, every, np.arange(1000), rare=True)
    np.testing.assert_allclose(none[:, 0], [beta.ppf(0.025, 1000.5, 0.5), 1])


@pytest.mark.filterwarnings("error")
def test_nothing_to_divide_by_is_nan() -> None:
    nan = float("nan")
    targets = np.array([[0, 1, 1, nan, 1], [0, 1, 0, nan, 0], [0, 1, 0, nan, 0]])
    probabilities = np.array([[0.2, 0.6, 0.3, 0.5, 0.4], [0.8, 0.7, 0.2, 0.5, 0.1], [0.1] * 5])
    names = ["no positive", "no negative", "none called", "none known", "no threshold"]
    thresholds = np.array([0.5, 0.65, 0.9, 0.5, nan])
    for intervals in (False, True):
        found = operating_points(targets, probabilities, names, thresholds, intervals=intervals)
        np.testing.assert_allclose(
            found[list(POINTS)].to_numpy(),
            [[nan, 2 / 3, 0, 1], [1 / 3, nan, 1, 0], [0, 1, nan, 2 / 3], [nan] * 4, [nan] * 4],
        )
        at = TargetPoint("sensitivity", 0.6)
        found = operating_points(targets, probabilities, names, at, intervals=intervals)
        np.testing.assert_allclose(
            found[["threshold", *POINTS[:3]]].to_numpy(),
            [[nan] * 4, [0.6, 2 / 3, nan, 1], [0.3, 1, 1, 1], [nan] * 4, [0.4, 1, 1, 1]],
        )
    assert found["ppv_low"].isna().all()


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
    with pytest.raises(UserError, match=r"lacks 1 of the 2 classes \(Mass\)"):
        read_thresholds(str(path), ["Nodule", "Mass"], gated=False)


@pytest.mark.parametrize("given", ["1.5", "nan", "no.json"])
def test_invalid_thresholds_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"--thresholds must be within|no\.json cannot be read"):
        read_thresholds(given, NAMES, gated=False)


@pytest.mark.parametrize("least", [0, 1.01, float("nan")])
def test_an_invalid_share_is_refused(least: float) -> None:
    with pytest.raises(UserError, match="--specificity must be above 0 and at most 1"):
        TargetPoint("specificity", least)
