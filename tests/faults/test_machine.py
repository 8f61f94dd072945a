"""Faults of the machine: few open files, a killed worker, a clock set back, two starts at once."""

import io
import json
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tqdm.std
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.data.phantom.dataset import make_phantom
from core.errors import UserError
from core.runs.folder import RunFolder
from core.runs.tracked_files import tracking_id
from core.runtime.environment import describe_start
from core.runtime.progress_bar import ProgressBar
from tests.helpers.fault_table import Fault
from tests.helpers.faults.commands import packing, predicting_of, training_of
from tests.helpers.faults.launches import at, shared
from tests.helpers.faults.system_faults import HOUR
from tests.helpers.faults.trials import Command, Trial
from tests.helpers.training.small_run import MODEL

TrialOf = Callable[[str], Trial]
COMMANDS = ("training", "infer", "pack")
CLOCK = "clock that is set back by an hour"
# open files: too few for a worker, and in the long form from next to none to enough
FEW_FILES = {
    "training": ([36], range(8, 60, 8)),
    "infer": ([20], range(8, 28, 4)),
    "pack": ([20], range(8, 28, 4)),
}
# what a command does when a worker of it is killed
BUSY = {"training": ("update", [8], range(1, 11, 2)), "infer": ("block", [2], range(1, 5))}
REFUSED = {
    "training": "another process is training in ",
    "infer": "another process is predicting into | exists: give another --output",
    "pack": "another process is packing into |is finished",
}


@pytest.fixture(scope="module")
def trial_of(tmp_path_factory: pytest.TempPathFactory) -> TrialOf:
    """Trial of a command with two loader workers; a training has a head epoch and another one."""
    data = tmp_path_factory.mktemp("data")
    make_phantom(data, images=40, size=32, seed=3)

    @cache
    def make(name: str) -> Trial:
        folder = tmp_path_factory.mktemp(name) / "work"
        return Trial(command(name, folder), shared())

    def command(name: str, folder: Path) -> Command:
        if name == "pack":
            return packing(data / "images", folder, 32)
        workers = ["--num_workers", 2]
        if name == "training":
            more = ["--epochs", 1, "--logger", "tensorboard", *workers]
            return training_of("standard_head", data, folder, *more)
        checkpoints = [make("training").undisturbed / "out" / f"{MODEL}_fold1.safetensors"]
        return predicting_of(checkpoints, data, folder, "--test_csv", data / "train.csv", *workers)

    return make


@pytest.mark.parametrize("name", [*COMMANDS[:2], pytest.param(COMMANDS[2], marks=pytest.mark.soak)])
def test_too_few_open_files(name: str, trial_of: TrialOf, soak: bool, fault: Fault) -> None:
    """The limit is a hard one, which the command cannot raise."""
    one, (chosen, every) = trial_of(name), FEW_FILES[name]
    refused = 0
    for limit in every if soak else chosen:
        fault("too few open files (ulimit -n)", 1)
        one.begin()
        ended = one.run(open_files=limit, finalize=True)
        if ended.code == 0:
            one.check(ended)
            continue
        refused += 1
        expected = f"too many open files: a process may have {limit} here (ulimit -n)"
        assert ended.refusal().startswith(expected)
        assert not ended.processes()
        one.check_what_is_left()
        one.finish()
    assert refused


@pytest.mark.parametrize("name", BUSY)
def test_a_worker_that_is_killed_for_memory(
    name: str, trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    """By SIGKILL from outside, as the kernel ends what has the highest oom_score."""
    one, (kind, chosen, every) = trial_of(name), BUSY[name]
    refused = 0
    for number in every if soak else chosen:
        fault("loader worker killed for lack of memory", 1)
        one.begin()
        ended = one.run(at(kind, number, calls=[["kill_worker"]]), finalize=True)
        if ended.code == 0:
            # it had sent all its batches
            one.check(ended)
            continue
        refused += 1
        sentence = ended.refusal()
        assert "a loader worker was ended by SIGKILL, perhaps for lack of memory" in sentence
        assert "rerun the command to resume" in sentence
        assert not ended.processes()
        one.check_what_is_left()
        again = one.finish()
        if name == "training":
            updates = again.seen["moments"]["update"]
            assert updates <= one.moments["update"] - number + 1, "it did not resume"
    assert refused


def test_a_clock_that_is_set_back_during_a_training(
    trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    one = trial_of("training")
    for number in range(1, one.moments["update"], 3) if soak else [3]:
        fault(CLOCK, 1)
        one.begin()
        one.check(one.run(at("update", number, calls=[["set_clock_back"]])))
        check_logs(one.folder / "out", starts=1)


def test_a_clock_that_is_set_back_between_two_starts(
    trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    """The second start is an hour before the first one."""
    one = trial_of("training")
    updates = one.moments["update"]
    for number in range(updates // 2 + 1, updates + 1, 2) if soak else [updates]:
        fault(CLOCK, 1)
        one.begin()
        assert one.kill("update", number)
        again = one.run(clock_back=HOUR)
        one.check(again)
        assert "Resuming the run" in again.printed
        check_logs(one.folder / "out", starts=2)
        first, second = starts_of(one.folder / "out")
        assert pd.Timedelta(minutes=50) < first - second < pd.Timedelta(hours=1)
    one.wait_for_killed()


def starts_of(out: Path) -> list[pd.Timestamp]:
    starts = json.loads((out / "env.json").read_text())["starts"]
    return [pd.Timestamp(start["time"]) for start in starts]


def check_logs(out: Path, *, starts: int) -> None:
    """Check times, rates and the order of epochs of a training of one fold."""
    timing = pd.read_csv(out / "timing.csv")
    assert timing["epoch"].tolist() == [1, 2]
    assert timing["seconds"].between(0, 300).all()
    assert timing["evaluation_seconds"].between(0, 300).all()
    assert timing["images_per_second"].between(0.01, 1e6).all()
    assert len(starts_of(out)) == starts
    board = EventAccumulator(str(out / "tensorboard" / "fold1")).Reload()
    steps = [event.step for event in board.Scalars("mAP")]
    assert steps == [1, 2], "TensorBoard draws them in the order of the files' names"


def test_a_progress_bar_continues_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 2e9
    monkeypatch.setattr(tqdm.std, "time", lambda: now)
    shown = io.StringIO()
    bar = ProgressBar(total=100, file=shown, mininterval=0, miniters=1)
    now -= HOUR
    time.sleep(0.001)
    bar.update(50)
    bar.close()
    last = shown.getvalue().splitlines()[-1].split("\r")[-1]
    assert "50/100" in last
    assert "00:00<00:00" in last
    assert "-" not in last


@pytest.mark.parametrize("name", [*COMMANDS[:2], pytest.param(COMMANDS[2], marks=pytest.mark.soak)])
def test_two_starts_in_the_same_second(
    name: str, trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    one = trial_of(name)
    for number in range(6 if soak else 1):
        fault("two starts of one command in the same second", 1)
        one.begin()
        first = one.start()
        time.sleep(0.15 * number)
        both = [first, one.start()]
        codes = sorted(launch.ends() for launch in both)
        if number and codes == [0, 0]:
            # the first had ended
            one.check(both[1])
            continue
        assert codes == [0, 2]
        (refused,) = [launch for launch in both if launch.code]
        assert any(words in refused.refusal() for words in REFUSED[name].split("|"))
        one.check(*[launch for launch in both if launch.code == 0])
        if name == "training":
            assert len(starts_of(one.folder / "out")) == 1


def test_a_run_that_another_start_creates_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are those of a run, also to a start that found none a moment before."""
    first, second, list_names = RunFolder(tmp_path, MODEL), RunFolder(tmp_path, MODEL), os.listdir
    settings = {"out_dir": str(tmp_path), "model": MODEL, "seed": 1, "img_size": 32}
    data: dict[str, Any] = {
        "data": "",
        "parts": {},
        "files": "",
        "labels": [],
        "starting_weights": None,
    }

    def create(path: Path) -> list[str]:
        monkeypatch.setattr(os, "listdir", list_names)
        first.open(settings, data, overwrite=False)
        first.labels.touch()
        return list_names(path)

    monkeypatch.setattr(os, "listdir", create)
    with pytest.raises(UserError, match="another process is training in"):
        second.open(settings, data, overwrite=False)
    first.release()


def test_two_starts_in_one_second_have_two_identities() -> None:
    first, second = describe_start(), describe_start()
    assert tracking_id([first]) != tracking_id([second])
