"""Intervals and paired differences against scikit-learn on the very same resamples."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from core.metrics import bootstrap, evaluate, paired_difference
from core.metrics.ap_auroc import Ranking
from core.metrics.bootstrap import cluster_indices, resampled_weights
from tests.helpers.synthetic.tables import NAMES, table

# --- intervals ------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 6])
def test_weighted_counts_agree_with_scikit_learn(levels):
    targets, probabilities = table(images=150, levels=levels)
    weights = np.random.default_rng(1).integers(0, 4, size=(8, 150)).astype(float)
    for column in range(4):
        y, p = targets[:, column], probabilities[:, column]
        aps, aurocs = Ranking.of(y, p).curve(weights).scores()
        for row in range(8):
            if not 0 < weights[row] @ y < weights[row].sum():
                assert np.isnan([aps[row], aurocs[row]]).all()
                continue
            ap = average_precision_score(y, p, sample_weight=weights[row])
            assert aps[row] == pytest.approx(ap, abs=1e-12)
            auroc = roc_auc_score(y, p, sample_weight=weights[row])
            assert aurocs[row] == pytest.approx(auroc, abs=1e-12)


def naive_intervals(targets, probabilities, patients, resamples, seed):
    """AP and AUROC of every resample by repeating rows and asking scikit-learn."""
    clusters = cluster_indices(patients, len(targets))
    (weights,) = resampled_weights(clusters, resamples, seed)
    scores = np.full((2, resamples, targets.shape[1]), np.nan)
    for row in range(resamples):
        drawn = np.repeat(np.arange(len(targets)), weights[row].astype(int))
        for column in range(targets.shape[1]):
            y, p = targets[drawn, column], probabilities[drawn, column]
            y, p = y[~np.isnan(y)], p[~np.isnan(y)]
            if 0 < y.sum() < len(y):
                scores[:, row, column] = average_precision_score(y, p), roc_auc_score(y, p)
    return scores


def test_intervals_agree_with_a_naive_loop():
    targets, probabilities = table(images=120, prevalences=(0.3, 0.1, 0.06), levels=15)
    targets[np.random.default_rng(3).random(targets.shape) < 0.1] = np.nan
    targets[:, 2] = 0
    targets[[4, 60], 2] = 1
    patients = np.random.default_rng(2).integers(0, 70, size=120)
    names = ["A", "B", "C"]
    result = evaluate(targets, probabilities, names, patients=patients, resamples=60, seed=7)
    scores = naive_intervals(targets, probabilities, patients, 60, 7)
    assert (np.isnan(scores[0]).sum(axis=0) == [0, 1, 7]).all()  # B and C are lost at times
    for samples, metric in zip(scores, ("ap", "auroc"), strict=True):
        expected = np.nanquantile(samples, [0.025, 0.975], axis=0)
        measured = result.per_class[[f"{metric}_low", f"{metric}_high"]].to_numpy().T
        np.testing.assert_allclose(measured, expected, atol=1e-9)
    for samples, metric in zip(scores, ("mAP", "mAUROC"), strict=True):
        macro = np.nanmean(samples[:, :2], axis=1)
        point = result.summary["interval_points"][metric]
        expected = np.quantile(macro, [0.025, 0.975]) - 2 * (macro.mean() - point)
        np.testing.assert_allclose(result.summary["intervals"][metric], expected, atol=1e-9)
    assert result.summary["classes_in_intervals"] == 2
    assert result.summary["too_rare_for_intervals"] == ["C"]


def test_macro_intervals_run_over_classes_with_five_positive_patients():
    targets, probabilities = table(images=200, prevalences=(0.3, 0.3, 0.3))
    targets[:, 1:] = 0
    targets[:10, 1] = 1
    targets[:5, 2] = 1
    patients = np.arange(200)
    patients[:10] //= 2  # B has ten positive images of five patients, C five of three
    names = ["A", "B", "C"]
    result = evaluate(targets, probabilities, names, patients=patients, resamples=50)
    summary, ap = result.summary, result.per_class["ap"]
    assert summary["too_rare_for_intervals"] == ["C"]
    assert summary["classes_in_intervals"] == 2
    assert summary["mAP"] == pytest.approx(ap.mean())
    assert summary["interval_points"]["mAP"] == pytest.approx(ap[["A", "B"]].mean())
    assert summary["interval_points"]["mAP_head"] == pytest.approx(ap["A"])
    assert set(summary["intervals"]) == {"mAP", "mAUROC", "mAP_head", "mAP_medium"}
    low, high = summary["intervals"]["mAP_head"]
    assert (low, high) == tuple(result.per_class.loc["A", ["ap_low", "ap_high"]])
    assert result.per_class.loc["C", ["ap_low", "ap_high"]].notna().all()


def test_image_without_patient_is_its_own_cluster():
    named = pd.Series(["p1", None, "p2", "p1", np.nan])
    clusters = cluster_indices(named, 5)
    assert clusters[0] == clusters[3]
    assert len(np.unique(clusters)) == 4
    weights = next(resampled_weights(clusters, 50, seed=0))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 3])
    assert (weights[:, 1] != weights[:, 4]).any()
    sums = weights[:, [0, 1, 2, 4]].sum(axis=1)
    np.testing.assert_array_equal(sums, 4)


def test_intervals_depend_on_the_seed_and_not_on_the_chunks(monkeypatch):
    targets, probabilities = table(images=100)
    first = evaluate(targets, probabilities, NAMES, resamples=40, seed=1).per_class
    other = evaluate(targets, probabilities, NAMES, resamples=40, seed=2).per_class
    assert not first.equals(other)
    monkeypatch.setattr(bootstrap, "CHUNK_RESAMPLES", 7)
    again = evaluate(targets, probabilities, NAMES, resamples=40, seed=1).per_class
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_a_thousand_resamples_are_quick_and_bounded_in_memory(monkeypatch):
    targets, probabilities = table(images=1000, prevalences=tuple(np.geomspace(0.2, 0.005, 14)))
    names = [f"class {c}" for c in range(14)]
    start = time.process_time()
    evaluate(targets, probabilities, names, resamples=1000)
    assert time.process_time() - start < 2
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 1_000_000)
    chunks = list(resampled_weights(np.arange(1000), 25, seed=0))
    assert [len(chunk) for chunk in chunks] == [10, 10, 5]


# --- paired differences ---------------------------------------------------------------------


def test_difference_of_a_file_with_itself_is_exactly_zero():
    targets, probabilities = table()
    result = paired_difference(targets, probabilities, probabilities.copy(), NAMES, resamples=50)
    assert result.summary["mAP"] == 0
    assert result.summary["intervals"] == {"mAP": (0, 0), "mAUROC": (0, 0)}
    assert (result.per_class == 0).all(axis=None)


def test_paired_difference_agrees_with_a_naive_loop():
    targets, first = table(images=150, prevalences=(0.3, 0.15), levels=40)
    second = np.clip(first + np.random.default_rng(9).normal(scale=0.2, size=first.shape), 0, 1)
    patients = np.arange(150) // 2
    result = paired_difference(targets, first, second, ["A", "B"], patients, 50, seed=4)
    naive = [naive_intervals(targets, scores, patients, 50, 4) for scores in (first, second)]
    ap, auroc = naive[0] - naive[1]
    for samples, metric in ((ap, "mAP"), (auroc, "mAUROC")):
        macro = samples.mean(axis=1)
        expected = np.quantile(macro, [0.025, 0.975]) - 2 * (macro.mean() - result.summary[metric])
        np.testing.assert_allclose(result.summary["intervals"][metric], expected, atol=1e-9)
    expected = np.quantile(ap[:, 1], [0.025, 0.975])
    np.testing.assert_allclose(result.per_class.loc["B", ["ap_low", "ap_high"]], expected, 1e-9)
    means = [
        evaluate(targets, scores, ["A", "B"], resamples=0).summary for scores in (first, second)
    ]
    assert result.summary["mAP"] == pytest.approx(means[0]["mAP"] - means[1]["mAP"])
    assert result.summary["mAUROC"] == pytest.approx(means[0]["mAUROC"] - means[1]["mAUROC"])
