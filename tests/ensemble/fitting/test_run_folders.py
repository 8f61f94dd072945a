"""`evaluate` and `calibrate` on run folders: the runs' own labels, and the images of all runs."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from core.runs.folder import RunFolder
from ensemble.calibrate import main as calibrate
from ensemble.evaluate import main as evaluate
from ensemble.fitting.out_of_fold import describe_folds, read_files_and_runs
from tests.helpers.calls import output_of, refusal
from tests.helpers.synthetic.runs import MODEL, NAMES, Command, guesses, labels_of, make_run


@pytest.fixture
def command(call: Command, tmp_path: Path) -> Command:
    """Runs `ensemble.evaluate` in this process, into e.json and e.csv."""
    return partial(call, evaluate, "--resamples", 0, "--output", tmp_path / "e")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of the same three folds, of which `two` has not finished the third."""
    labels, paths = tmp_path / "labels.csv", [tmp_path / "one", tmp_path / "two"]
    labels_of().to_csv(labels, index=False)
    for path, noise in zip(paths, (2, 3), strict=True):
        make_run(path, labels, guesses(labels_of(), noise, seed=noise), 3, seed=1)
        shutil.copy(labels, path)
    RunFolder(paths[1], MODEL).files(3).state.unlink()
    return paths


def mean_ap(run: Path, folds: tuple[int, ...]) -> float:
    """mAP of a run's predictions of these folds, by scikit-learn."""
    files = [RunFolder(run, MODEL).files(fold).predictions for fold in folds]
    found = pd.concat([pd.read_csv(file, index_col="ImageID") for file in files])
    truth = labels_of().set_index("ImageID").loc[found.index]
    return float(np.mean([average_precision_score(truth[name], found[name]) for name in NAMES]))


def test_two_runs_are_compared_on_the_folds_of_both(
    command: Command, runs: list[Path], tmp_path: Path
) -> None:
    before = [sorted(path.iterdir()) for path in runs]
    printed = output_of(command, *runs)
    assert "common to all runs: 1, 2 (one: 1, 2, 3 of 3; two: 1, 2 of 3)" in printed
    found = json.loads((tmp_path / "e.json").read_text())
    board = {Path(one["predictions"]).name: one for one in found["leaderboard"]}
    scores = {path.name: mean_ap(path, (1, 2)) for path in runs}
    for name, score in scores.items():
        assert board[name]["summary"]["images"] == 60
        assert board[name]["summary"]["mAP"] == pytest.approx(score)
    difference = board["two"]["compared"]["mAP"]["difference"]
    assert difference == pytest.approx(scores["two"] - scores["one"])
    assert [sorted(path.iterdir()) for path in runs] == before
    # a run alone, all of its folds; and beside a file
    assert f"{mean_ap(runs[0], (1, 2, 3)):.3f}" in output_of(command, runs[0], "--overwrite")
    files = RunFolder(runs[1], MODEL).files(1)
    printed = output_of(command, runs[1], "--predictions", files.predictions, "--overwrite")
    assert "folds        1, 2 of 3" in printed
    assert "30 images, " in printed


def test_nothing_is_written_into_a_run_folder_unasked(
    call: Command, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = [sorted(path.iterdir()) for path in runs]
    csv = RunFolder(runs[0], MODEL).files(1).predictions
    for words in ([runs[0]], runs, ["--predictions", csv, "--common"]):
        command = partial(call, evaluate, *words, "--resamples", 0)
        output_of(command)
        assert "exists: give another --output, or --overwrite" in refusal(command)
    made = {path.name for path in Path("outputs").glob("*.json")}
    assert made == {"one_metrics.json", "one_leaderboard.json", f"one_{csv.stem}_metrics.json"}
    assert [sorted(path.iterdir()) for path in runs] == before


def test_folds_of_runs_with_one_name_show_no_folder_if_anonymous(
    runs: list[Path], tmp_path: Path
) -> None:
    paths = [shutil.copytree(run, tmp_path / f"of_{run.name}" / "run") for run in runs]
    found = read_files_and_runs(paths)[1]
    assert str(paths[0]) in describe_folds(found)
    words = describe_folds(found, anonymous=True)
    assert words == "common to all runs: 1, 2 (run (1): 1, 2, 3 of 3; run (2): 1, 2 of 3)"


def test_runs_of_other_folds_are_compared_on_all_images(
    command: Command, runs: list[Path], tmp_path: Path
) -> None:
    other, labels = tmp_path / "other", tmp_path / "labels.csv"
    make_run(other, labels, guesses(labels_of(), 2, seed=5), 2, seed=9)
    shutil.copy(labels, other)
    printed = output_of(command, runs[0], other)
    assert "divided differently (one: 1, 2, 3 of 3; other: 1, 2 of 2)" in printed
    assert "90 images, " in printed


def test_one_run_is_calibrated(call: Command, runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    command = partial(call, calibrate, "--folds", 2, "--output", output)
    printed = output_of(command, runs[1])
    assert "60 images" in printed
    assert "Finished folds: 1, 2 of 3." in printed
    assert sorted(json.loads(output.read_text())["classes"]) == sorted(NAMES)
    assert "only one can be calibrated" in refusal(command, *runs, "--overwrite")


def change_csv(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for path in folder.glob("*.csv"):
        change(pd.read_csv(path)).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda two: shutil.rmtree(two), "is missing: give a CSV of predictions or a run folder"),
        (lambda two: (two / "config.json").unlink(), "is not a run folder"),
        (lambda two: [one.unlink() for one in two.glob("*.state.*")], "has no finished fold"),
        (
            lambda two: change_csv(two, lambda f: f.replace(r"\.png", ".jpg", regex=True)),
            "no image",
        ),
        (lambda two: change_csv(two, lambda f: f.rename(columns={"Mass": "X"})), "1 class of"),
        (
            lambda two: change_csv(two, lambda f: f.replace({"Mass": {0: 1}})),
            "have different labels",
        ),
    ],
    ids=["missing", "no run", "unfinished", "other images", "other classes", "different labels"],
)
def test_runs_that_cannot_be_compared(
    command: Command,
    runs: list[Path],
    tmp_path: Path,
    change: Callable[[Path], object],
    expected: str,
) -> None:
    change(runs[1])
    assert expected in refusal(command, *runs)
    assert not [*tmp_path.glob("e.*")]


def test_a_run_without_labels_needs_their_csv(
    command: Command, runs: list[Path], tmp_path: Path
) -> None:
    (runs[0] / "labels.csv").unlink()
    assert "one has no labels.csv" in refusal(command, runs[0])
    assert "90 images, " in output_of(command, runs[0], "--labels", tmp_path / "labels.csv")
