"""Metrics against scikit-learn, closed forms and values worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from core.errors import UserError
from core.metrics import evaluate, paired_difference
from core.metrics.calibration_error import Reliability
from tests.helpers.synthetic.tables import NAMES, table

# --- points ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 50, 4, 1])
@pytest.mark.parametrize("seed", range(3))
def test_points_agree_with_scikit_learn(seed, levels):
    targets, probabilities = table(images=200, seed=seed, levels=levels)
    assert (targets.sum(axis=0) > 0).all()
    rows = evaluate(targets, probabilities, NAMES, resamples=0).per_class
    for column, name in enumerate(NAMES):
        y, p = targets[:, column], probabilities[:, column]
        row = rows.loc[name]
        assert row["n"] == 200
        assert row["positives"] == y.sum()
        assert row["ap"] == pytest.approx(average_precision_score(y, p), abs=1e-12)
        assert row["auroc"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
        assert row["f1"] == pytest.approx(f1_score(y, p >= 0.5, zero_division=0), abs=1e-12)
        assert row["brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-12)
        precision, recall, _ = precision_recall_curve(y, p)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()
        assert row["f1_fitted"] == pytest.approx(best, abs=1e-12)
        assert f1_score(y, p >= row["threshold"]) == pytest.approx(best, abs=1e-12)


def test_macro_and_micro_agree_with_scikit_learn():
    targets, probabilities = table(levels=30)
    summary = evaluate(targets, probabilities, NAMES, resamples=0).summary
    for key, expected in {
        "mAP": average_precision_score(targets, probabilities, average="macro"),
        "mAUROC": roc_auc_score(targets, probabilities, average="macro"),
        "mF1": f1_score(targets, probabilities >= 0.5, average="macro", zero_division=0),
        "micro_AP": average_precision_score(targets, probabilities, average="micro"),
    }.items():
        assert summary[key] == pytest.approx(expected, abs=1e-12)
    assert summary["classes_scored"] == 4
    assert summary["unscored"] == []
    assert summary["intervals"] == {}
    json.dumps(summary)


def test_class_without_both_kinds_is_named_and_left_out():
    targets, probabilities = table()
    targets[:, 1], targets[:, 2] = 0, 1
    result = evaluate(targets, probabilities, NAMES, resamples=20)
    rows, summary = result.per_class, result.summary
    assert summary["unscored"] == ["Effusion", "Nodule"]
    assert summary["classes_scored"] == 2
    measures = ["ap", "auroc", "f1", "f1_fitted", "threshold", "auroc_low", "auroc_high"]
    assert rows.loc[["Effusion", "Nodule"], measures].isna().all(axis=None)
    assert rows.loc[["Infiltration", "Hernia"], measures].notna().all(axis=None)
    expected = [average_precision_score(targets[:, c], probabilities[:, c]) for c in (0, 3)]
    assert summary["mAP"] == pytest.approx(np.mean(expected), abs=1e-12)
    # calibration needs no positives: the class that never occurs counts
    assert rows["ece"].notna().all()
    assert summary["ECE"] == pytest.approx(rows["ece"].mean(), abs=1e-12)
    assert rows.loc["Effusion", "ece"] == pytest.approx(probabilities[:, 1].mean())


def test_table_without_any_scored_class_gives_nan():
    summary = evaluate(np.zeros((3, 2)), np.full((3, 2), 0.1), ["A", "B"], resamples=5).summary
    assert np.isnan(summary["mAP"])
    assert np.isnan(summary["micro_AP"])
    assert summary["classes_in_intervals"] == 0
    assert summary["intervals"] == {}
    assert np.isnan(summary["RMSCE"])


def test_unknown_labels_are_left_out():
    targets, probabilities = table(levels=20)
    unknown = np.random.default_rng(5).random(targets.shape) < 0.3
    masked = np.where(unknown, np.nan, targets)
    result = evaluate(masked, probabilities, NAMES, resamples=0)
    for column, name in enumerate(NAMES):
        known = ~unknown[:, column]
        alone = evaluate(
            targets[known][:, [column]], probabilities[known][:, [column]], [name], resamples=0
        )
        pd.testing.assert_frame_equal(result.per_class.loc[[name]], alone.per_class)
    flat = average_precision_score(targets[~unknown], probabilities[~unknown])
    assert result.summary["micro_AP"] == pytest.approx(flat, abs=1e-12)
    masked[:, 0] = np.nan
    row = evaluate(masked, probabilities, NAMES, resamples=3).per_class.loc["Infiltration"]
    assert row["n"] == 0
    assert row["group"] == "unknown"
    assert np.isnan(row["ece"])


# --- calibration ----------------------------------------------------------------------------


def test_ece_by_hand():
    # class A fills bins 0, 7 and 14 of 15; class B is perfectly calibrated in one bin
    probabilities = np.array([[0.0, 0.5], [0.06, 0.5], [0.5, 0.5], [1.0, 0.5]])
    targets = np.array([[0.0, 1], [1, 0], [0, 1], [1, 0]])
    result = evaluate(targets, probabilities, ["A", "B"], resamples=0)
    in_a = (2 * abs(0.5 - 0.03) + 1 * abs(0 - 0.5) + 1 * abs(1 - 1)) / 4
    assert result.per_class.loc["A", "ece"] == pytest.approx(in_a)
    assert result.per_class.loc["B", "ece"] == pytest.approx(0)
    assert result.summary["ECE"] == pytest.approx(in_a / 2)
    # flattened, bin 7 holds B's four and A's one: 2 of 5 positive at .5
    flat = (2 * abs(0.5 - 0.03) + 5 * abs(2 / 5 - 0.5) + 0) / 8
    assert result.summary["ECE_flat"] == pytest.approx(flat)


def test_a_calibrated_model_has_no_calibration_error_but_for_chance() -> None:
    """ECE falls with the number of images; what is without the part of chance lies about 0."""
    random = np.random.default_rng(0)
    found, outside = [], 0
    for _ in range(40):
        probabilities = random.random((400, 3)) * 0.6
        targets = (random.random((400, 3)) < probabilities).astype(float)
        summary = evaluate(targets, probabilities, ["A", "B", "C"]).summary
        assert summary["ECE"] > 0.02
        outside += summary["intervals"]["RMSCE_flat"][0] > 0
        squares = Reliability.of(targets, probabilities, np.arange(400)).values
        found.append(squares.mean())
    assert outside <= 5
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(40)


def test_moves_of_a_calibration_error_are_those_of_leaving_out_each_patient() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((300, 1)) < 0.4).astype(float)
    probabilities = np.clip(targets * 0.3 + random.random((300, 1)) * 0.7, 0, 1)
    clusters = random.integers(0, 100, size=300)
    whole = Reliability.of(targets, probabilities, clusters)
    falls = []
    for patient in range(100):
        rest = clusters != patient
        without = Reliability.of(targets[rest], probabilities[rest], clusters[rest])
        falls.append(whole.values[0] - without.values[0])
    assert np.corrcoef(whole.moves[:, 0], falls)[0, 1] > 0.97
    assert (whole.moves**2).sum() == pytest.approx((np.array(falls) ** 2).sum(), rel=0.2)
    mean = Reliability.of(np.repeat(targets, 2, 1), np.repeat(probabilities, 2, 1), clusters).mean()
    np.testing.assert_allclose(mean.roots()[1], whole.roots()[1], rtol=0.1)


def test_a_rare_label_that_no_patient_of_a_bin_has_is_no_calibration_error() -> None:
    """Ten patients with twenty like images at 2 %: that all are negative is chance (82 %)."""
    targets, probabilities = np.zeros((200, 1)), np.full((200, 1), 0.02)
    for patients, images in ((10, 20), (200, 1)):
        found = Reliability.of(targets, probabilities, np.arange(200) // images)
        model = 0.02 * 0.98 / patients
        np.testing.assert_allclose(found.values, 0.02**2 - model * 4 / (4 + patients))
        # no patient has it: there is nothing to print
        assert np.isnan(found.roots()[0]).all()


def test_values_near_the_end_of_the_scale_lie_within_their_intervals() -> None:
    targets = np.r_[np.ones(20), np.zeros(2000)][:, None]
    scores = np.linspace(1, 0, 2020)[:, None]
    scores[19], scores[22] = scores[22].copy(), scores[19].copy()
    row = evaluate(targets, scores, ["A"]).per_class.loc["A"]
    assert 0.999 < row["auroc"] < 1
    assert row["auroc_low"] < row["auroc"] <= row["auroc_high"]


def test_two_perfect_models_may_differ_on_other_patients() -> None:
    random = np.random.default_rng(0)
    targets = np.r_[np.ones(20), np.zeros(60)][:, None]
    first, second = (targets / 2 + random.random((80, 1)) * 0.4 for _ in range(2))
    found = paired_difference(targets, first, second, ["A"]).per_class.loc["A"]
    assert found["auroc"] == 0
    assert found["auroc_low"] < -0.001 < 0.001 < found["auroc_high"]


# --- groups ---------------------------------------------------------------------------------


def test_groups_follow_training_prevalence_by_name():
    targets, probabilities = table(prevalences=(0.3,) * 6)
    names = ["A", "B", "C", "D", "E", "F"]
    shares = {"F": 0.004, "E": 0.005, "D": 0.01, "C": 0.1, "B": 0.11, "A": float("nan")}
    result = evaluate(targets, probabilities, names, prevalence=shares, resamples=0)
    groups = result.per_class["group"].to_dict()
    expected = ["unknown", "head", "medium", "medium", "tail", "tail"]
    assert groups == dict(zip(names, expected, strict=True))
    summary, ap = result.summary, result.per_class["ap"]
    assert summary["prevalence_from"] == "training"
    assert summary["mAP_head"] == pytest.approx(ap["B"])
    assert summary["mAP_medium"] == pytest.approx(ap[["C", "D"]].mean())
    assert summary["mAP_tail"] == pytest.approx(ap[["E", "F"]].mean())
    assert summary["mAP_extreme"] == pytest.approx(ap["F"])
    assert summary["group_classes"] == {"head": 1, "medium": 2, "tail": 2, "extreme": 1}
    for same in (pd.Series(shares), [shares[name] for name in names]):
        again = evaluate(targets, probabilities, names, prevalence=same, resamples=0)
        assert again.per_class["group"].to_dict() == groups
    own = evaluate(targets, probabilities, names, resamples=0, cuts=(0.9, 0.8, 0.7))
    assert own.summary["prevalence_from"] == "scored table"
    assert own.summary["group_classes"] == {"head": 0, "medium": 0, "tail": 6, "extreme": 6}


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.5])
def test_impossible_probability_is_refused_by_class_and_row(wrong):
    targets, probabilities = table()
    probabilities[17, 2] = wrong
    with pytest.raises(ValueError, match=r"'Nodule' in row 17 .*finite and within \[0, 1\]"):
        evaluate(targets, probabilities, NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": NAMES[:3]}, r"shape \(images, 3\)"),
        ({"class_names": ["A", "B", "A", "C"]}, "'A' is named more than once"),
        ({"probabilities": np.zeros((399, 4))}, r"\(399, 4\) but targets are \(400, 4\)"),
        ({"targets": np.zeros((0, 4))}, "at least one"),
        ({"targets": np.full((400, 4), -1.0)}, "'Infiltration' in row 0 is -1"),
        ({"patients": ["a", "b"]}, "2 patients are given for 400 images"),
        ({"resamples": -1}, "must not be negative"),
        ({"prevalence": {"Effusion": 0.1}}, "'Infiltration'"),
        ({"prevalence": [0.1, 0.1]}, "2 training prevalences are given for 4 classes"),
        ({"prevalence": [20, 0.1, 0.1, 0.1]}, r"'Infiltration' is 20, not within \[0, 1\]"),
        ({"cuts": (0.01, 0.1, 0.2)}, "descend"),
    ],
)
def test_what_cannot_be_scored_is_refused(options, message):
    targets, probabilities = table()
    arguments = {"targets": targets, "probabilities": probabilities, "class_names": NAMES}
    with pytest.raises(UserError, match=message):
        evaluate(**(arguments | options))
