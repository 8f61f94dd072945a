"""A disk that is full at any write: one sentence, nothing lost, and the same command goes on."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from core.data.phantom.dataset import make_phantom
from tests.helpers.fault_table import Fault
from tests.helpers.faults.disk_tasks import COMMANDS, Task, arguments_of, training
from tests.helpers.faults.small_disk import Room, shared_room
from tests.helpers.training.small_run import METHODS, MODEL

TaskOf = Callable[[str], Task]
# where a training may fail in the short form: what, with which file, which time
PLACES = [
    ("save", ".state.safetensors", 1),
    ("replace", "/test_efficientnet_fold1.safetensors", 1),
    ("write", "_val.csv", 1),
    ("write", "/metrics.csv", 2),
    ("write", ".0", 2),
    ("write", ".html", 1),
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return shared_room(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, images=32, size=32, seed=3)
    labels = pd.read_csv(folder / "test_labels.csv").drop(columns="PatientID")
    classes = labels.columns[1:]
    labels[classes] = 0.2 + 0.5 * labels[classes]
    labels.to_csv(folder / "predicted.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def task_of(room: Room, data: Path) -> TaskOf:
    """The task of a method, or of another command."""

    @cache
    def make(name: str) -> Task:
        if name in METHODS:
            return training(room, name, data)
        run = make("standard_head").undisturbed / "out"
        coupled = run
        if "{coupled}" in COMMANDS[name]:
            coupled = make("label_coupling").undisturbed / "out"
        if name == "ensemble.choose":
            run = run_of_many(run, data, room.notes / "many")
        places = {"data": data, "run": run, "coupled": coupled, "work": room.path / "work"}
        return Task(room, name, arguments_of(name, **places))

    return make


def run_of_many(run: Path, data: Path, made: Path) -> Path:
    """That run as if it had been of the phantom's test images, which are of more patients."""
    shutil.copytree(run, made)
    settings = json.loads((made / "config.json").read_text())
    settings["train_csv"] = [str(data / "test_labels.csv")]
    (made / "config.json").write_text(json.dumps(settings))
    predicted = pd.read_csv(data / "predicted.csv")[["ImageID", "Effusion", "Normal"]]
    predicted.to_csv(made / f"{MODEL}_fold1_val.csv", index=False)
    return made


def numbers_of(task: Task, share: int, soak: bool) -> list[int]:
    """All steps of a task in the long form, else `share` of them, evenly spread."""
    every = range(1, len(task.steps) + 1)
    return list(every) if soak else list(every[len(every) // (share + 1) :: len(every) // share])


def test_each_write_of_a_training(task_of: TaskOf, soak: bool, fault: Fault) -> None:
    task = task_of("standard_head")
    numbers = list(range(1, len(task.steps) + 1))
    if not soak:
        numbers = [task.number(*place) for place in PLACES]
    fault("full disk at a write of a training", len(numbers))
    for number in numbers:
        told = task.try_full({"at": number, "errno": "ENOSPC"})
        what, name = task.steps[number - 1]
        if what in ("write", "save", "replace"):
            assert "No space left on device; make room there, and the same command goes on" in told
            assert Path(name).suffix in told


@pytest.mark.parametrize("method", METHODS[1:])
def test_writes_of_the_other_methods(
    method: str, task_of: TaskOf, soak: bool, fault: Fault
) -> None:
    if not soak:
        pytest.skip("in the long form: the methods share what they write with")
    numbers = range(1, len(task_of(method).steps) + 1, 12)
    fault("full disk at a write of a training", len(numbers))
    for number in numbers:
        task_of(method).try_full({"at": number, "errno": "ENOSPC"})


@pytest.mark.parametrize("command", COMMANDS)
def test_each_write_of_another_command(
    command: str, task_of: TaskOf, soak: bool, fault: Fault
) -> None:
    if command.endswith("couplings") and not soak:
        pytest.skip("in the long form: it needs a training more")
    task = task_of(command)
    numbers = numbers_of(task, 3 if command in ("ensemble.infer", "core.data.pack") else 1, soak)
    if command == "core.data.phantom":
        # a picture is written as the one before it was
        numbers = numbers[::12]
    fault("full disk at a write of predictions, a pack or scores", len(numbers))
    for number in numbers:
        task.try_full({"at": number, "errno": "ENOSPC"})


def test_a_phantom_ends_at_the_first_picture_without_room(room: Room, task_of: TaskOf) -> None:
    """OpenCV says that it wrote what it did not."""
    if not room.mounted:
        pytest.skip("this system lets nobody mount a file system of his own")
    task = task_of("core.data.phantom")
    task.begin()
    begun = task.number("open", "phantom.partial")
    told = task.run({"at": begun, "fill": str(room.path / "ballast")}).sentence()
    assert "No space left on device" in told
    assert len(list(task.seen.rglob("*.png"))) <= 1


def test_other_reasons_of_a_disk(task_of: TaskOf, soak: bool, fault: Fault) -> None:
    """A quota, a limit on a file's size, a disk that fails, for a moment only."""
    task = task_of("standard_head")
    reasons = ["EDQUOT", "EFBIG", "EIO"]
    numbers = numbers_of(task, 2, soak=False)
    if soak:
        numbers = list(range(2, len(task.steps), 8))
    fault("quota, file size limit or failing disk at a write", len(numbers))
    for place, number in enumerate(numbers):
        reason = reasons[place % len(reasons)]
        told = task.try_full({"at": number, "errno": reason, "once": True})
        assert not told or os.strerror(getattr(errno, reason)) in told


def test_a_disk_that_is_really_full(room: Room, task_of: TaskOf, soak: bool, fault: Fault) -> None:
    """A file system of its own, which another program fills when a file is begun."""
    if not room.mounted:
        pytest.skip("this system lets nobody mount a file system of his own")
    names = ["standard_head", "ensemble.infer", "core.data.phantom"]
    names += ["label_coupling", "core.data.pack", "ensemble.evaluate"] if soak else []
    tried, refused = 0, 0
    chosen = {}
    for name in names:
        opened = [
            number
            for number, (what, _) in enumerate(task_of(name).steps, start=1)
            if what == "open"
        ]
        chosen[name] = opened[1::8] if soak else opened[len(opened) // 2 :][:1]
        tried += len(chosen[name])
    fault("a disk that is really full (tmpfs)", tried)
    for name, numbers in chosen.items():
        for number in numbers:
            blow = {"at": number, "fill": str(room.path / "ballast")}
            refused += task_of(name).try_full(blow) != ""
    # the others had begun nothing that needed more room
    assert refused > tried / 2
