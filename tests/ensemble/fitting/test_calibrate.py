"""`python -m ensemble.calibrate`: scores fold by fold, files and errors."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, f1_score, log_loss
from tqdm import tqdm

from core.config.data import LabelReading
from core.config.values import flat
from core.metrics import evaluate
from core.metrics.calibration_error import expected_calibration_error
from ensemble.calibrate import Config, main, score_stages
from ensemble.fitting.calibrators import (
    ALPHAS,
    BEFORE,
    CALIBRATED,
    GATED,
    Problem,
    fit_calibration,
    held_out,
)
from ensemble.predict.calibration import Identity, normal_gating, read_calibration
from tests.helpers.calls import output_of, refusal
from tests.helpers.synthetic.findings import table
from tests.helpers.synthetic.runs import Command

FloatArray = NDArray[np.float64]


def test_held_out_scores_are_those_of_the_rest_applied_to_each_fold() -> None:
    """The whole procedure, written out fold by fold."""
    problem = table(1, rows=150)
    problem.targets[:40, 1] = np.nan
    problem.probabilities[:] = problem.probabilities.round(1)  # some are a threshold
    quiet = tqdm(disable=True)
    tested = held_out(problem, 3, 5, quiet)
    assignment = problem.folds(3, 5)
    called = {stage: np.zeros((150, 4), dtype=bool) for stage in (BEFORE, CALIBRATED, GATED)}
    ranks = {stage: np.zeros((150, 4)) for stage in called}
    for fold in range(3):
        rest, rows = problem.part(assignment != fold), assignment == fold
        fitted = fit_calibration(rest, 3, 5, quiet)
        assert tested.alphas[fold] == fitted.normal_alpha
        raw = problem.probabilities
        calibrated = fitted.apply(raw, problem.class_names)
        gated = normal_gating(calibrated, problem.class_names, "Normal", fitted.normal_alpha)
        for stage, values in ((BEFORE, raw), (CALIBRATED, calibrated), (GATED, gated)):
            np.testing.assert_allclose(tested.probabilities[stage][rows], values[rows], rtol=1e-12)
            below = (values[:, None] < values[rows]).sum(axis=0)
            tied = (values[:, None] == values[rows]).sum(axis=0)
            ranks[stage][rows] = below + tied / 2
        for column, one in enumerate(fitted.classes.values()):
            simple = evaluate(rest.targets, rest.probabilities, problem.class_names, resamples=0)
            own = simple.per_class["threshold"].iloc[column]
            called[BEFORE][rows, column] = raw[rows, column] >= own
            called[CALIBRATED][rows, column] = calibrated[rows, column] >= one.threshold
            called[GATED][rows, column] = gated[rows, column] >= one.threshold_gated
    scores, classes = score_stages(problem, tested)
    known = ~np.isnan(problem.targets)
    for stage in (BEFORE, CALIBRATED, GATED):
        parts = [
            (problem.targets[k, c], tested.probabilities[stage][k, c], called[stage][k, c])
            for c, k in enumerate(known.T)
        ]
        ranked = [(problem.targets[k, c], ranks[stage][k, c]) for c, k in enumerate(known.T)]
        expected = {
            "ECE": np.mean([expected_calibration_error(y, p) for y, p, _ in parts]),
            "log_loss": np.mean([log_loss(y, p.clip(1e-6, 1 - 1e-6)) for y, p, _ in parts]),
            "mF1_fitted": np.mean([f1_score(y, hit) for y, _, hit in parts]),
            "mAP": np.mean([average_precision_score(y, rank) for y, rank in ranked]),
        }
        for name, value in expected.items():
            assert scores.loc[name, stage] == pytest.approx(value, abs=1e-9), (stage, name)
        y, p, hit = parts[1]
        assert classes.loc["b", f"F1 fitted, {stage}"] == pytest.approx(f1_score(y, hit))
        assert classes.loc["b", f"ECE, {stage}"] == pytest.approx(expected_calibration_error(y, p))


def test_a_class_of_one_kind_has_no_threshold_and_no_map() -> None:
    problem = table(0, rows=80)
    problem.targets[:, 1] = 0
    problem.targets[:, 2] = np.nan
    calibration = fit_calibration(problem, 3, 0, tqdm(disable=True))
    assert calibration.classes["b"] == calibration.classes["c"] == Identity()
    scores, classes = score_stages(problem, held_out(problem, 3, 0, tqdm(disable=True)))
    assert np.isnan(classes.loc[["b", "c"], f"F1 fitted, {CALIBRATED}"]).all()
    assert np.isfinite(scores.to_numpy()).all()


@pytest.fixture
def command(call: Command) -> Command:
    return partial(call, main)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Problem]:
    """Predictions with logits shifted by 3, labels in another order, and the true values."""
    problem = table(2)
    problem.probabilities[:] = expit(logit(problem.probabilities) + 3).round(7)
    return *write_files(tmp_path, problem), problem


def write_files(folder: Path, problem: Problem) -> tuple[Path, Path]:
    """CSVs of the predictions and of the labels of 200 images."""
    ids = [f"{row:03}.png" for row in range(200)]
    names = list(problem.class_names)
    predictions = pd.DataFrame(problem.probabilities, index=ids, columns=names)
    labels = pd.DataFrame(problem.targets.astype(int), index=ids, columns=names)
    labels.insert(0, "PatientID", problem.patients)
    predictions.sample(frac=1, random_state=1).to_csv(
        folder / "p.csv", index_label="ImageID", columns=names[::-1]
    )
    labels.sample(frac=1, random_state=2).to_csv(folder / "l.csv", index_label="ImageID")
    return folder / "p.csv", folder / "l.csv"


def test_it_calibrates_reports_and_writes(
    command: Command, files: tuple[Path, Path, Problem], tmp_path: Path
) -> None:
    predictions, labels, problem = files
    out = tmp_path / "made" / "c.json"
    flags = ["--predictions", predictions, "--labels", labels, "--folds", 3, "--output", out]
    printed = output_of(command, *flags)
    calibration = read_calibration(out)
    assert calibration.normal_class == "Normal"
    assert sorted(calibration.classes) == sorted(problem.class_names)
    held_out = json.loads(out.read_text())["made_from"]["held_out"]
    before = evaluate(problem.targets, problem.probabilities, problem.class_names, resamples=0)
    for name in ("ECE", "ECE_flat", "mF1", "mAP", "mAUROC"):
        assert held_out["before"][name] == pytest.approx(before.summary[name], abs=1e-6)
        assert f"{before.summary[name]:.3f}" in printed
    assert held_out["calibrated"]["ECE"] < 0.12 < held_out["before"]["ECE"]
    assert calibration.normal_alpha in ALPHAS
    assert calibration.normal_alpha > 0
    assert f"alpha {calibration.normal_alpha:g}" in printed
    assert "--calibration" in (last := printed.splitlines()[-1])
    assert last.endswith(" --postprocess normal_gating")
    assert "Recommended: held-out patients show a gain in mAP." in " ".join(printed.split())
    # a shift of all logits by 3 is found and reported
    assert "before → calibrated: log loss -" in " ".join(printed.split())
    assert printed.count(": better.") >= 2
    assert max(map(len, printed.split("\ncalibration  ")[0].splitlines())) <= 102

    assert "c.json exists" in refusal(command, *flags)
    before_bytes = out.read_bytes()
    assert command(*flags, "--overwrite")[0] == 0
    assert out.read_bytes() == before_bytes


def test_gating_without_a_shown_gain_is_not_recommended(command: Command, tmp_path: Path) -> None:
    problem = table(3)
    # a normal class that is as good as guessed
    noise = np.random.default_rng(3).normal(size=200)
    problem.probabilities[:, 3] = expit(problem.targets[:, 3] / 2 + 2 * noise).round(7)
    predictions, labels = write_files(tmp_path, problem)
    out = tmp_path / "c.json"
    flags = ["--predictions", predictions, "--labels", labels, "--folds", 3, "--output", out]
    printed = output_of(command, *flags)
    # the rows of the fit promise a gain, and other patients show none
    assert read_calibration(out).normal_alpha > 0
    line = " ".join(printed.split())
    interval = re.search(r"calibrated → gated: .* mAP \S+ \[(\S+), (\S+)\]", line)
    assert interval is not None
    assert float(interval[1]) < 0 < float(interval[2])
    assert "best mAP of the other classes" in line
    assert "Not recommended: the interval of its gain in mAP" in line
    assert "--postprocess" not in printed.splitlines()[-1]
    assert json.loads(out.read_text())["made_from"]["gating_recommended"] is False


def test_without_a_normal_class_and_patients(
    command: Command, files: tuple[Path, Path, Problem], tmp_path: Path
) -> None:
    paths = [tmp_path / "bare_p.csv", tmp_path / "bare_l.csv"]
    for path, bare in zip(files[:2], paths, strict=True):
        columns = ["Normal", "PatientID"]
        pd.read_csv(path).drop(columns=columns, errors="ignore").to_csv(bare, index=False)
    flags = ["--predictions", paths[0], "--labels", paths[1], "--output", tmp_path / "c.json"]
    printed = output_of(command, *flags, "--folds", 2)
    held_out = json.loads((tmp_path / "c.json").read_text())["made_from"]["held_out"]
    row = " ".join(f"{one['mAP']:.3f}" for one in held_out.values())
    line = " ".join(printed.split())
    for sentence in ("no normal class: no gating", "patients not known", f"mAP {row} mAUROC "):
        assert sentence in line
    assert "alpha" not in printed


def test_what_it_refuses(
    command: Command, files: tuple[Path, Path, Problem], tmp_path: Path
) -> None:
    predictions, labels, _ = files
    (tmp_path / "bad.csv").write_text("ImageID,a\n1.png,2\n")
    (tmp_path / "recipe.json").write_text('{"kind": "ensemble", "format_version": 1}')
    both: list[object] = ["--predictions", predictions, "--labels", labels]
    pd.read_csv(labels).replace({1: 0}).to_csv(tmp_path / "no_finding.csv", index=False)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, expected in (
        ([], "no predictions are given"),
        (both[:2], "no labels are given"),
        (["--predictions", tmp_path / "bad.csv", *both[2:]], "not a probability"),
        ([*both[:2], "--labels", tmp_path / "no_finding.csv"], "can be scored"),
        ([*both, "--folds", 300], "only 100 patients"),
        ([*both, "--normal_class", "Normla"], "did you mean 'Normal'"),
        ([*both, "--output", labels, "--overwrite"], "must end in .json"),
        ([*both, "--output", tmp_path / "recipe.json"], "exists"),
        (
            [*both, "--output", tmp_path / "recipe.json", "--overwrite"],
            "not a valid calibration.json",
        ),
    ):
        more = [] if "--output" in arguments else ["--output", tmp_path / "c.json"]
        assert expected in refusal(command, *arguments, *more)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_flags_are_an_interface() -> None:
    names = {"runs", "predictions", "labels", "common", "folds", "seed", "normal_class", "output"}
    assert set(flat(Config())) == {*names, "overwrite", *flat(LabelReading())}
