"""Several processes on one machine: a failure of one ends all, and nothing is lost."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.faults.commands import assert_complete, predicting, training
from tests.helpers.faults.launches import INFER, TRAIN, Launches, Place, at
from tests.helpers.faults.same_results import differing
from tests.helpers.training.small_run import MODEL

SOAK = pytest.mark.soak
KILL = pytest.mark.fault("SIGKILL to one process of several")
BAD_IMAGE = pytest.mark.fault("unreadable image or NaN of one process")
RANKS = pytest.mark.parametrize("rank", [pytest.param(0, marks=SOAK), 1])


@pytest.fixture(scope="module")
def trained(launches: Launches, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result of an undisturbed training of two processes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    launches.start(TRAIN, *training(data, out), place=Place(2)).finishes()
    return out.rename(out.with_name("trained"))


@pytest.fixture
def out(trained: Path) -> Iterator[Path]:
    """Where that training was: checkpoints name their folder."""
    yield trained.with_name("out")
    shutil.rmtree(trained.with_name("out"), ignore_errors=True)


@pytest.mark.fault("number of processes that divides no number of images", tried=2)
@pytest.mark.parametrize("processes", [pytest.param(1, marks=SOAK), pytest.param(2, marks=SOAK), 4])
def test_validation_and_predictions_are_complete(
    processes: int, launches: Launches, data: Path, trained: Path, out: Path, tmp_path: Path
) -> None:
    launches.start(TRAIN, *training(data, out), place=Place(processes)).finishes()
    assert_complete(out)
    one, several = tmp_path / "one.csv", tmp_path / "several.csv"
    launches.start(INFER, *predicting(data, trained, one)).finishes()
    words = predicting(data, trained, several)
    printed = launches.start(INFER, *words, place=Place(processes)).finishes()
    assert printed.count("predictions  ") == 1
    overlaps = {"one_training_overlap.json", "several_training_overlap.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"one.csv", "several.csv"} | overlaps
    ours, theirs = (pd.read_csv(path, index_col="ImageID") for path in (several, one))
    assert list(ours.index) == pd.read_csv(data / "train.csv")["ImageID"].tolist()
    assert np.abs(ours - theirs).max(axis=None) < 1e-5


def test_two_processes_predict_at_the_end_of_a_training(
    launches: Launches, data: Path, tmp_path: Path
) -> None:
    out, submission = tmp_path / "out", tmp_path / "submission.csv"
    words = [
        *training(data, out, method="label_coupling"),
        "--test_csv",
        data / "test.csv",
        "--test_dir",
        data / "images",
    ]
    module = "methods.label_coupling.train"
    printed = launches.start(module, *words, "--out_csv", submission, place=Place(2)).finishes()
    assert printed.count("run folder") == 1
    assert_complete(out, epochs=2)
    named = pd.read_csv(submission, index_col="ImageID")
    assert list(named.index) == pd.read_csv(data / "test.csv")["ImageID"].tolist()
    assert list(named.columns) == ["Effusion", "Normal"]
    assert named.map(lambda p: 0 < p < 1).all(axis=None)


@KILL
@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        ("update", 0),
        pytest.param("update", 1, marks=SOAK),
        pytest.param("batch", 0, marks=SOAK),
        ("batch", 1),
    ],
)
def test_a_killed_process_is_named_and_the_same_command_resumes(
    kind: str, rank: int, launches: Launches, data: Path, trained: Path, out: Path
) -> None:
    """Also where the others are in the middle of an evaluation."""
    moment = at(kind, 6, rank=rank, signal=signal.SIGKILL)
    launch = launches.start(TRAIN, *training(data, out), place=Place(2), moment=moment)
    launch.comes_to_its_moment(rank)
    message = launch.sentence()
    assert message.startswith(f"process {rank + 1} of 2 (rank {rank}) ended without a message: ")
    assert message.endswith("; rerun the same command to resume")
    assert launch.failed_rank == 1 - rank
    launches.start(TRAIN, *training(data, out), place=Place(2)).finishes()
    assert not differing(out, trained)


@KILL
@RANKS
def test_a_killed_process_of_a_prediction_is_named(
    rank: int, launches: Launches, data: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.csv"
    words = predicting(data, trained, output)
    moment = at("block", 2, rank=rank, signal=signal.SIGKILL)
    launch = launches.start(INFER, *words, place=Place(2), moment=moment)
    message = launch.sentence()
    assert message.startswith(f"process {rank + 1} of 2 (rank {rank}) ended without a message: ")
    assert not output.exists()
    assert "Resuming: " in launches.start(INFER, *words, place=Place(2)).finishes()
    undisturbed = predicting(data, trained, tmp_path / "q.csv")
    launches.start(INFER, *undisturbed, place=Place(2)).finishes()
    assert output.read_bytes() == (tmp_path / "q.csv").read_bytes()


@BAD_IMAGE
@RANKS
def test_an_unreadable_image_of_one_process_ends_all_by_its_name(
    rank: int, launches: Launches, data: Path, trained: Path, out: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(data / "images", images)
    # in the order of the table: the first batch is of the first rank, and so on
    held_out = pd.read_csv(trained / f"{MODEL}_fold1_val.csv")["ImageID"]
    spoiled = images / str(held_out[4 * rank])
    whole = spoiled.read_bytes()
    spoiled.write_bytes(whole[: len(whole) // 2])
    words = [*training(data, out), "--train_dir", str(images)]
    launch = launches.start(TRAIN, *words, place=Place(2))
    assert str(spoiled) in launch.sentence()
    assert launch.failed_rank == rank
    assert not (out / "metrics.csv").exists()
    spoiled.write_bytes(whole)
    launches.start(TRAIN, *words, place=Place(2)).finishes()
    # settings and report name --train_dir
    numbers = {"metrics.csv", "folds.csv", f"{MODEL}_fold1_val.csv"}
    assert not numbers & differing(out, trained)


@BAD_IMAGE
def test_an_unreadable_image_of_a_prediction_is_reported_once(
    launches: Launches, data: Path, trained: Path, tmp_path: Path
) -> None:
    images, output = tmp_path / "images", tmp_path / "p.csv"
    shutil.copytree(data / "images", images)
    # blocks of 8: the second is the second rank's
    spoiled = images / pd.read_csv(data / "train.csv")["ImageID"][9]
    whole = spoiled.read_bytes()
    spoiled.write_bytes(b"")
    words = [*predicting(data, trained, output), "--image_dir", images]
    assert spoiled.name in launches.start(INFER, *words, place=Place(2)).sentence()
    assert not output.exists()
    spoiled.write_bytes(whole)
    assert "7 of 8 blocks are done" in launches.start(INFER, *words, place=Place(2)).finishes()


@pytest.mark.fault("start-up that fails in one process of several")
def test_an_error_of_one_process_does_not_block_the_others(
    launches: Launches, data: Path, tmp_path: Path
) -> None:
    """The first rank alone opens the run folder; the other one waits for it."""
    (tmp_path / "file").touch()
    launch = launches.start(TRAIN, *training(data, tmp_path / "file" / "out"), place=Place(2))
    assert ": Not a directory" in launch.sentence()
    assert launch.failed_rank == 0
