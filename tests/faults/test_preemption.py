"""Stops by a scheduler or Ctrl-C: time and exit code of the end, and files left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.runtime.signals import SAME_CTRL_C
from tests.helpers.faults.commands import predicting, training
from tests.helpers.faults.launch import Launch, wait_until
from tests.helpers.faults.launches import INFER, TRAIN, Launches, Place, at
from tests.helpers.faults.same_results import differing
from tests.helpers.training.small_run import ROOT

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
PASS_ON = {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"}
SOAK, STOP = pytest.mark.soak, pytest.mark.fault("SIGTERM, SIGUSR1 or Ctrl-C")
RESUME_HINT = "; the same command goes on from here"


@pytest.fixture(scope="module")
def trained(launches: Launches, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result of an undisturbed training of two folds, moved away."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    launches.start(TRAIN, *two_folds(data, out)).finishes()
    return out.rename(out.with_name("trained"))


def two_folds(data: Path, out: Path) -> list[str]:
    return training(data, out, "--run_folds", 1, 2, "--save_minutes", 1000)


def ends_in_silence(launch: Launch, number: int) -> None:
    """Assert an immediate end without output."""
    launch.comes_to_its_moment()
    began = time.monotonic()
    assert launch.ends() == 128 + number
    assert time.monotonic() - began < 5
    assert "Traceback" not in launch.printed
    assert not launch.errors


@STOP
@pytest.mark.parametrize(
    ("kind", "count", "number"),
    [
        ("update", 5, USR1),
        pytest.param("update", 20, TERM, marks=SOAK),
        pytest.param("batch", 3, INT, marks=SOAK),
        pytest.param("fold", 1, USR1, marks=SOAK),
        ("report", 1, TERM),
    ],
)
def test_a_stopped_training_resumes_to_the_same_bits(
    kind: str, count: int, number: int, launches: Launches, data: Path, trained: Path
) -> None:
    """In an update or an evaluation, between two folds, while the report is drawn."""
    out = trained.with_name("out")
    words = two_folds(data, out)
    launch = launches.start(TRAIN, *words, moment=at(kind, count, signal=number))
    if kind in ("update", "batch"):
        assert launch.ends() == 128 + number
        assert launch.printed.count(RESUME_HINT) == 1
        assert "Traceback" not in launch.printed
    else:
        ends_in_silence(launch, number)
    assert not list(out.rglob(".*.*")), "a file that was not finished"
    launches.start(TRAIN, *words).finishes()
    assert not differing(out, trained)
    out.rename(out.with_name(f"{kind}{count}"))


@STOP
def test_a_repeated_signal_counts_once(launches: Launches, data: Path, tmp_path: Path) -> None:
    """`timeout`, launchers and SLURM signal a process and its whole group, at once or later."""
    words = training(data, tmp_path / "out", "--epochs", 2000)
    launch = launches.start(TRAIN, *words, moment=at("batch", 2), batch_seconds=0.6)
    launch.comes_to_its_moment()
    for seconds in (0.05, SAME_CTRL_C + 0.2, 0):
        launch.send(TERM)
        time.sleep(seconds)
    assert launch.ends() == 128 + TERM
    assert RESUME_HINT in launch.printed


@pytest.mark.fault("second Ctrl-C in a long evaluation")
@pytest.mark.parametrize("workers", [pytest.param(0, marks=SOAK), 2])
def test_a_second_ctrl_c_leaves_at_once(
    workers: int, launches: Launches, data: Path, tmp_path: Path
) -> None:
    """In the middle of a long evaluation; Ctrl-C goes to the loader's workers too."""
    words = training(data, tmp_path / "out", "--num_workers", workers)
    launch = launches.start(TRAIN, *words, moment=at("batch", 1), batch_seconds=60)
    launch.comes_to_its_moment()
    os.killpg(launch.pid, INT)
    time.sleep(SAME_CTRL_C + 0.3)
    assert not launch.has_ended()
    before = launch.printed
    os.killpg(launch.pid, INT)
    ends_in_silence(launch, INT)
    assert launch.printed == before


@STOP
@pytest.mark.parametrize("number", [pytest.param(INT, marks=SOAK), USR1])
def test_a_stopped_prediction_prints_how_to_resume(
    number: int, launches: Launches, data: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.csv"
    words = predicting(data, trained, output, "--num_workers", 1)
    launch = launches.start(INFER, *words, moment=at("block", 3, signal=number))
    assert launch.ends() == 128 + number
    assert launch.printed.endswith("Stopped: rerun the same command to resume.\n")
    assert "Traceback" not in launch.printed
    assert not output.exists()
    assert "Resuming: 3 of 8 blocks are done" in launches.start(INFER, *words).finishes()


@STOP
@pytest.mark.parametrize(
    "number", [pytest.param(INT, marks=SOAK), pytest.param(TERM, marks=SOAK), USR1]
)
def test_a_stop_of_a_launch_reaches_its_processes(
    number: int, launches: Launches, data: Path, tmp_path: Path
) -> None:
    """SIGUSR1 to the launcher, with its setting; Ctrl-C, which the launcher gets and passes on, and
    which a terminal sends to its processes as well."""
    out, words = tmp_path / "out", training(data, tmp_path / "out", "--epochs", 2000)
    launch = launches.start(TRAIN, *words, place=Place(2), environment=PASS_ON)
    wait_until(lambda: "epoch  3/" in launch.printed or launch.has_ended(), 200)
    if number == INT:
        os.killpg(launch.pid, number)
    else:
        launch.send(number)
    assert launch.ends() == 1
    assert launch.printed.count(RESUME_HINT) == 1
    assert not launch.errors
    assert not launch.has_traceback()
    assert list(out.glob("*.state.safetensors"))


@STOP
@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        *((0.4, TERM), (0.8, USR1), (1.4, INT)),
        *(pytest.param(3.5 + more, sent, marks=SOAK) for more in (0, 1) for sent in (TERM, INT)),
    ],
)
def test_a_stop_while_it_starts_is_silent(
    seconds: float, number: int, data: Path, tmp_path: Path
) -> None:
    """By a process of its own, from its first import to the first files."""
    with subprocess.Popen(
        [sys.executable, "methods/standard_head/train.py", *training(data, tmp_path / "out")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(seconds)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode in (128 + number, -number)
    assert error == b""
    assert not list(tmp_path.rglob(".*.*"))
