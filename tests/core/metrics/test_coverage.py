"""The intervals cover what they should: data sets whose truth is known by integration."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.studies.interval_simulation import draw, measure, population_ap

# a column of a table is a data set: four of a kind share a table's resamples, which saves time
TABLES, EACH, RESAMPLES = 100, 4, 300


def classes(*pairs: tuple[int, float]) -> pd.DataFrame:
    rows = [pair for pair in pairs for _ in range(EACH)]
    return pd.DataFrame(rows, columns=["positives", "true AUROC"])


@pytest.mark.parametrize("clustered", [False, True])
def test_the_truth_is_what_a_large_draw_shows(clustered: bool) -> None:
    prevalences, aurocs = np.array([0.05, 0.3]), np.array([0.9, 0.7])
    shifts = np.sqrt(2) * norm.ppf(aurocs)
    random = np.random.default_rng(0)
    targets, probabilities, patients = draw(random, 200_000, prevalences, shifts, clustered)
    assert 200_000 / len(np.unique(patients)) == pytest.approx(3.6 if clustered else 1, rel=0.01)
    np.testing.assert_allclose(targets.mean(axis=0), prevalences, rtol=0.03)
    measured = roc_auc_score(targets, probabilities, average=None)
    np.testing.assert_allclose(measured, aurocs, atol=0.005)
    truth = [population_ap(*pair) for pair in zip(prevalences, shifts, strict=True)]
    measured = average_precision_score(targets, probabilities, average=None)
    np.testing.assert_allclose(measured, truth, atol=0.012)


def test_without_signal_the_truth_is_the_prevalence() -> None:
    assert population_ap(0.004, 0.0) == pytest.approx(0.004)


def test_intervals_cover_the_truth() -> None:
    """400 data sets a kind of class, and 100 tables of the mean over them.

    Without the correction of `mean_interval`, 81 of the 100 intervals of mAP do.
    """
    kinds = classes((50, 0.8), (50, 0.9), (200, 0.8))
    rows, means = measure(kinds, 1000, TABLES, RESAMPLES, "single")
    covered = rows.groupby(["metric", "positives", "true AUROC"])["covered"].mean()
    assert covered.between(0.92, 0.98).all(), covered.to_string()
    assert means.loc[["mAP", "mAUROC"], "covered"].between(0.88, 0.99).all(), means.to_string()


def test_intervals_of_patients_cover_the_truth_where_those_of_images_do_not() -> None:
    covered = {}
    for kind in ("patients", "images"):
        rows, _ = measure(classes((100, 0.9)), 1000, TABLES, RESAMPLES, kind)
        covered[kind] = rows.loc[rows["metric"] == "AP", "covered"].mean()
    assert 0.92 <= covered["patients"] <= 0.98
    assert covered["images"] < 0.88
