"""A scheduler or an impatient hand stops a command: when it ends, how, and what is then there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.runtime.signals import SECONDS_OF_ONE_WISH
from tests.helpers.fault_table import Fault
from tests.helpers.faults.launched_runs import differing, predicting, training
from tests.helpers.faults.launches import (
    INFER,
    TRAIN,
    Launch,
    Launches,
    Place,
    leave_to_soak,
    shared,
    small_data,
    wait_until,
)
from tests.helpers.training.small_run import ROOT

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
PASS_ON = {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"}
PORTS = range(29646, 29651)
GOES_ON = "; the same command goes on from here"


@pytest.fixture(scope="module")
def launches() -> Launches:
    return shared()


@pytest.fixture(scope="module")
def data() -> Path:
    return small_data()


@pytest.fixture(scope="module")
def trained(launches: Launches, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two folds that nobody stopped; its place is free again."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    launches.start(TRAIN, *two_folds(data, out)).finishes()
    return out.rename(out.with_name("trained"))


def two_folds(data: Path, out: Path) -> list[str]:
    return training(data, out, "--run_folds", 1, 2, "--save_minutes", 1000)


def ends_in_silence(launch: Launch, number: int) -> None:
    """Without a word of its own and at once."""
    launch.comes_to_its_moment()
    began = time.monotonic()
    assert launch.ends() == 128 + number
    assert time.monotonic() - began < 5
    assert "Traceback" not in launch.printed
    assert not launch.errors


@pytest.mark.parametrize(
    ("kind", "at", "number"),
    [
        *(("update", 5, USR1), ("update", 20, TERM), ("batch", 3, INT), ("fold", 1, USR1)),
        ("report", 1, TERM),
    ],
)
def test_a_stopped_training_goes_on_to_the_same_bits(
    kind: str,
    at: int,
    number: int,
    launches: Launches,
    data: Path,
    trained: Path,
    soak: bool,
    fault: Fault,
) -> None:
    """In an update or an evaluation, between two folds, while the report is drawn."""
    leave_to_soak(soak, (kind, at) not in (("update", 5), ("report", 1)))
    fault("SIGTERM, SIGUSR1 or Ctrl-C", 1)
    out = trained.with_name("out")
    words = two_folds(data, out)
    launch = launches.start(TRAIN, *words, moment=(0, kind, at, number))
    if kind in ("update", "batch"):
        assert launch.ends() == 128 + number
        assert launch.printed.count(GOES_ON) == 1
        assert "Traceback" not in launch.printed
    else:
        ends_in_silence(launch, number)
    assert not list(out.rglob(".*.*")), "a file that was not finished"
    launches.start(TRAIN, *words).finishes()
    assert not differing(out, trained)
    out.rename(out.with_name(f"{kind}{at}"))


def test_one_wish_that_comes_twice_is_one(
    launches: Launches, data: Path, tmp_path: Path, fault: Fault
) -> None:
    """`timeout`, launchers and SLURM signal a process and its whole group, at once or later."""
    fault("SIGTERM, SIGUSR1 or Ctrl-C", 1)
    words = training(data, tmp_path / "out", "--epochs", 2000)
    launch = launches.start(TRAIN, *words, moment=(0, "batch", 2, 0), batch_seconds=0.6)
    launch.comes_to_its_moment()
    for seconds in (0.05, SECONDS_OF_ONE_WISH + 0.2, 0):
        launch.send(TERM)
        time.sleep(seconds)
    assert launch.ends() == 128 + TERM
    assert GOES_ON in launch.printed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_ctrl_c_leaves_at_once(
    workers: int, launches: Launches, data: Path, tmp_path: Path, soak: bool, fault: Fault
) -> None:
    """In the middle of a long evaluation; Ctrl-C goes to the loader's workers too."""
    leave_to_soak(soak, workers == 0)
    fault("second Ctrl-C in a long evaluation", 1)
    words = training(data, tmp_path / "out", "--num_workers", workers)
    launch = launches.start(TRAIN, *words, moment=(0, "batch", 1, 0), batch_seconds=60)
    launch.comes_to_its_moment()
    os.killpg(launch.pid, INT)
    time.sleep(SECONDS_OF_ONE_WISH + 0.3)
    assert not launch.has_ended()
    before = launch.printed
    os.killpg(launch.pid, INT)
    ends_in_silence(launch, INT)
    assert launch.printed == before


@pytest.mark.parametrize("number", [INT, USR1])
def test_a_stopped_prediction_says_how_to_go_on(
    number: int,
    launches: Launches,
    data: Path,
    trained: Path,
    tmp_path: Path,
    soak: bool,
    fault: Fault,
) -> None:
    leave_to_soak(soak, number == INT)
    fault("SIGTERM, SIGUSR1 or Ctrl-C", 1)
    output = tmp_path / "p.csv"
    words = predicting(data, trained, output, "--num_workers", 1)
    launch = launches.start(INFER, *words, moment=(0, "block", 3, number))
    assert launch.ends() == 128 + number
    assert launch.printed.endswith("Stopped. The same command goes on where this one was.\n")
    assert "Traceback" not in launch.printed
    assert not output.exists()
    assert "Going on: 3 of 8 blocks are there" in launches.start(INFER, *words).finishes()


@pytest.mark.parametrize("to_all", [False, True])
def test_a_stopped_packer_says_how_to_go_on(
    to_all: bool, launches: Launches, data: Path, tmp_path: Path, soak: bool, fault: Fault
) -> None:
    """SLURM signals all processes of a job step, those too that decode."""
    leave_to_soak(soak, not to_all)
    fault("SIGTERM, SIGUSR1 or Ctrl-C", 1)
    words = ["--train_dir", data / "images", "--size", 1024, "--num_workers", 1]
    words += ["--out", tmp_path / "pack"]
    launch = launches.start("core.data.pack", *words, moment=(0, "block", 1, 0))
    launch.comes_to_its_moment()
    (os.killpg if to_all else os.kill)(launch.pid, USR1)
    assert launch.ends() == 128 + USR1, launch.printed
    assert launch.printed == "\nStopped. The same command goes on where this one was.\n"
    assert "pack         " in launches.start("core.data.pack", *words).finishes()


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("number", [INT, TERM, USR1])
def test_a_stop_of_a_launch_reaches_its_processes(
    number: int,
    real: bool,
    soak: bool,
    launches: Launches,
    data: Path,
    tmp_path: Path,
    fault: Fault,
) -> None:
    """SIGUSR1 to the launcher, with its setting; Ctrl-C, which the launcher gets and passes on, and
    which a terminal sends to its processes as well."""
    leave_to_soak(soak, real or number != USR1)
    fault("SIGTERM, SIGUSR1 or Ctrl-C", 1)
    out, words = tmp_path / "out", training(data, tmp_path / "out", "--epochs", 2000)
    if real:
        launches = Launches(tmp_path, PORTS, real=True)
    launch = launches.start(TRAIN, *words, place=Place(2), environment=PASS_ON)
    wait_until(lambda: "epoch  3/" in launch.printed or launch.has_ended(), 200)
    if number == INT:
        os.killpg(launch.pid, number)
    else:
        launch.send(number)
    assert launch.ends() == 1
    assert launch.printed.count(GOES_ON) == 1
    assert not launch.errors
    assert not launch.has_traceback()
    assert list(out.glob("*.state.safetensors"))


def test_a_stop_while_it_starts_is_silent(
    data: Path, tmp_path: Path, soak: bool, fault: Fault
) -> None:
    """By a process of its own, from its first import to the first files."""
    moments = (0.4, 0.8, 1.4, 2.0, 3.0, 4.0, 5.0) if soak else (0.4, 0.8, 1.4)
    fault("SIGTERM, SIGUSR1 or Ctrl-C", len(moments))
    for number, seconds in enumerate(moments):
        out = tmp_path / f"out{number}"
        script = "methods/standard_head/train.py"
        with subprocess.Popen(
            [sys.executable, script, *training(data, out)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            time.sleep(seconds)
            sent = (TERM, USR1, INT)[number % 3]
            process.send_signal(sent)
            _, told = process.communicate(timeout=60)
        assert process.returncode in (128 + sent, -sent)
        assert told == b""
        assert not list(out.rglob(".*.*"))
