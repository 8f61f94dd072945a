"""Short coverage study: reference values, and a verdict that can fail."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.studies.coverage import scenarios as coverage_scenarios
from benchmarks.studies.coverage.scenarios import (
    Interval,
    classes,
    grid,
    percentiles,
    run_all,
    subgroups,
    table_of,
)
from benchmarks.studies.coverage.simulation import (
    Population,
    RealLabels,
    percentile_intervals,
    population_ap,
)
from core.metrics import evaluate
from core.metrics.intervals import Estimate

DATA_SETS = 60


def population(counts: list[int], shared: float = 0.6) -> Population:
    """200 patients with 1 to 8 images, and four classes of each count of positives."""
    sizes = np.array([1, 1, 2, 3, 8])
    every = np.repeat(counts, 4)
    return Population(every / 3 / 400, np.full(len(every), 0.85), sizes, 400, shared)


@pytest.mark.parametrize(("shared", "levels"), [(0.0, None), (0.6, None), (0.0, 20), (0.0, 4)])
def test_the_truth_is_what_a_large_draw_shows(shared: float, levels: int | None) -> None:
    drawn = Population(
        np.array([0.05, 0.3]), np.array([0.9, 0.7]), np.array([1, 5]), 70_000, shared, levels
    )
    targets, probabilities, patients = drawn.draw(np.random.default_rng(0))
    assert len(patients) / len(np.unique(patients)) == pytest.approx(3, rel=0.01)
    np.testing.assert_allclose(targets.mean(axis=0), drawn.prevalences, rtol=0.03)
    measured = roc_auc_score(targets, probabilities, average=None)
    np.testing.assert_allclose(measured, drawn.areas, atol=0.007)
    measured = average_precision_score(targets, probabilities, average=None)
    np.testing.assert_allclose(measured, drawn.aps, atol=0.012)
    if levels is not None:
        return
    second = drawn.second(np.random.default_rng(1), drawn.draw(np.random.default_rng(0)), 0.5, 0.3)
    measured = roc_auc_score(targets, second.probabilities, average=None)
    np.testing.assert_allclose(measured, drawn.weaker(0.5).aurocs, atol=0.007)


def test_without_signal_the_truth_is_the_prevalence() -> None:
    assert population_ap(0.004, 0.0) == pytest.approx(0.004)


def test_patients_of_real_labels_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    table = pd.DataFrame({"ImageID": list("abcdef"), "PatientID": [1, 2, 2, 3, 3, 3]})
    table = table.assign(Mass=[0, 1, 0, 1, 1, 0], Hernia=[1, 0, 0, 0, 0, 0])
    table.to_csv(tmp_path / "labels" / "nih_chestxray14.csv.gz", index=False)
    drawn = RealLabels.of_nih(tmp_path, patients=50)
    targets, _, patients = drawn.draw(np.random.default_rng(0))
    groups = {tuple(map(tuple, targets[patients == one])) for one in range(50)}
    assert groups == {((0, 1),), ((1, 0), (0, 0)), ((1, 0), (1, 0), (0, 0))}


def test_the_true_calibration_error_is_what_a_large_draw_shows() -> None:
    drawn = Population(np.array([0.1, 0.3]), np.array([0.9, 0.7]), np.array([1]), 300_000)
    targets, probabilities, patients = drawn.draw(np.random.default_rng(0))
    for sharpened, expected in ((1.0, 0.0), (1.5, None)):
        given = drawn.calibrated(probabilities, sharpened)
        summary = evaluate(targets, given, ["A", "B"], patients=patients).summary
        for name, true in zip(("RMSCE", "RMSCE_flat"), drawn.reliability(sharpened), strict=True):
            assert summary[name] == pytest.approx(true, abs=0.003)
            assert expected is None or true == pytest.approx(expected, abs=1e-9)
            assert true > 0.03 or sharpened == 1


def shares(draws: list[Interval]) -> pd.Series:
    cells = table_of(pd.DataFrame(draws).assign(scenario="short"), DATA_SETS)
    return cells.set_index(["what", "positives"])["covered"]


def short_study() -> pd.Series:
    """What part of the intervals holds the truth, by quantity and positives."""
    drawn = population([25, 25, 25, 120])
    seeds = range(DATA_SETS)
    return shares([one for seed in seeds for one in classes(drawn, np.random.default_rng(seed))])


def test_intervals_hold_the_truth_and_percentile_ones_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = short_study()
    assert found[[("AP", 120), ("AUROC", 25), ("AUROC", 120)]].between(0.91, 0.99).all(), found
    assert found[[("mAP", 0), ("mAUROC", 0)]].between(0.88, 1).all(), found
    drawn = population([25, 25, 25, 120])
    seeds = map(np.random.default_rng, range(DATA_SETS))
    before = shares([one for seed in seeds for one in percentiles(drawn, seed)])
    assert before["AUROC, percentile", 25] < 0.91
    assert before["mAP, percentile", 0] < 0.88

    def percentile(estimate: Estimate) -> np.ndarray:
        """The limit of a percentile one: neither bias, nor skewness, nor few patients count."""
        width = 1.96 * np.sqrt(estimate.variance)
        return np.clip(np.stack([estimate.values - width, estimate.values + width]), 0, 1)

    monkeypatch.setattr(Estimate, "interval", percentile)
    worse = short_study()
    assert worse["mAP", 0] < 0.88


def test_percentile_intervals_are_those_of_scikit_learn_on_drawn_patients() -> None:
    sample = population([60]).draw(np.random.default_rng(0))
    bounds, means = percentile_intervals(sample, np.random.default_rng(1), resamples=20)
    number = int(sample.patients.max()) + 1
    drawn = np.random.default_rng(1).multinomial(number, np.full(number, 1 / number), size=20)
    values = [
        [
            score(sample.targets, sample.probabilities, average=None, sample_weight=weights)
            for weights in drawn[:, sample.patients]
        ]
        for score in (average_precision_score, roc_auc_score)
    ]
    expected = np.percentile(values, [2.5, 97.5], axis=1)
    np.testing.assert_allclose(bounds, expected)
    expected = np.percentile(np.mean(values, axis=2), [2.5, 97.5], axis=1)
    np.testing.assert_allclose(means, expected)


def test_subgroups_of_equal_performance_are_scored_apart() -> None:
    drawn = list(subgroups(population([60]), np.random.default_rng(0)))
    found = {one.what: one for one in drawn}
    assert found["mAUROC of the larger subgroup"].truth == pytest.approx(0.85)
    smaller = found["mAUROC of the smaller subgroup"]
    assert smaller.high - smaller.low > 0.05
    equal = [one for name, one in found.items() if name.startswith("mAP* of")]
    assert abs(equal[0].value) < 0.2


def test_a_verdict_needs_enough_intervals_and_their_error() -> None:
    rows = [Interval("AP", 20, 0.8, 0.1, 0.3, 0.2, 0.2)] * 900
    rows += [Interval("AP", 20, 0.8, 0.3, 0.4, 0.35, 0.2)] * 100
    rows += [Interval("AUROC", 20, 0.8, 0.1, 0.3, 0.2, 0.2)] * 950
    rows += [Interval("AUROC", 20, 0.8, 0.0, 0.1, 0.05, 0.2)] * 50
    rows += [Interval("AP", 5, 0.8, float("nan"), float("nan"), 0.2, 0.2)] * 900
    rows += [Interval("AP", 5, 0.8, 0.3, 0.4, 0.2, 0.2)] * 100
    cells = table_of(pd.DataFrame(rows).assign(scenario="a"), 1000).set_index(["what", "positives"])
    assert cells["verdict"].to_dict() == {("AP", 5): "", ("AP", 20): "MISSED", ("AUROC", 20): "ok"}
    assert cells.loc[("AP", 5), "printed"] == 0.1
    assert cells.loc[("AUROC", 20), "below"] == 0.05
    assert cells.loc[("AUROC", 20), "error"] == pytest.approx(0.0069, abs=1e-4)


def test_a_finished_scenario_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = partial(classes, grid(0.0, [20]))
    monkeypatch.setattr(coverage_scenarios, "scenarios", lambda: {"small": drawn})
    monkeypatch.setattr(coverage_scenarios, "OUT", tmp_path)
    monkeypatch.setattr(coverage_scenarios, "DATA_SETS", 3)
    (first,) = run_all(["small"])
    assert {"AP", "AUROC", "mAP", "mAUROC"} <= set(first["what"])
    monkeypatch.setattr(coverage_scenarios, "scenarios", dict)
    (again,) = run_all(["small"])
    pd.testing.assert_frame_equal(first, again)
