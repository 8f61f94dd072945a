"""A folder that is read-only, removed or moved; a full log and a small /dev/shm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.data.phantom.dataset import make_phantom
from core.errors import UserError
from core.io.atomic import check_writable
from core.io.lock import LOCK
from tests.helpers.fault_table import Fault
from tests.helpers.faults.disk_tasks import COMMANDS, Task, arguments_of, training
from tests.helpers.faults.small_disk import Room, shared_room
from tests.helpers.training.small_run import MODEL, ROOT, flags

STATE = f"{MODEL}_fold1.state.safetensors"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mounts and /proc")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return shared_room(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, images=32, size=32, seed=3)
    return folder


@pytest.fixture(scope="module")
def task(room: Room, data: Path) -> Task:
    return training(room, "standard_head", data)


@pytest.fixture
def mounts(room: Room) -> Room:
    if not room.mounted:
        pytest.skip("this system lets nobody mount a file system of his own")
    return room


def middle_of(task: Task, soak: bool, begun: str = ".lock") -> list[int]:
    """Steps of a task after that with the file `begun`, before its end."""
    first = max(n for n, (_, name) in enumerate(task.steps[:-1], start=2) if name.endswith(begun))
    numbers = range(first, len(task.steps))
    return list(numbers[::12] if soak else numbers[len(numbers) // 3 :][:1])


def others_run(place: Path) -> list[list[str]]:
    """What moves a folder and leaves somebody else's in its place."""
    away = ["move", str(place), f"{place}_moved"]
    return [away, ["mkdir", str(place)], ["mknod", str(place / LOCK)]]


def test_a_run_folder_that_is_removed_or_moved(task: Task, soak: bool, fault: Fault) -> None:
    out, seen = task.work / "out", task.seen / "out"
    away = task.seen / "out_moved"
    ways = {
        "removed": [["remove", str(out)]],
        "moved": others_run(out)[:1],
        "replaced": others_run(out),
    }
    # between two files a run might go on in another's folder, and not notice
    numbers = [*middle_of(task, soak, "folds.csv"), task.number("open", f".{STATE}")]
    fault("folder removed or moved while it is written", len(ways) * len(numbers))
    for way, calls in ways.items():
        for number in numbers:
            task.begin()
            told = task.run({"at": number, "call": calls}).sentence()
            assert str(out) in told
            assert "removed or moved" in told or "No such file" in told
            # nothing in its place, nor elsewhere
            assert seen.exists() == (way == "replaced")
            assert {path.name for path in task.seen.iterdir()} <= {"out", "out_moved"}
            if way == "replaced":
                # one file, the record of one epoch, or the report may be under way
                left = {path.name for path in seen.iterdir()} - {LOCK}
                assert len(left) <= 1 or not {"config.json", STATE} & left
            if way != "removed":
                shutil.rmtree(seen, ignore_errors=True)
                away.rename(seen)
            task.check_the_same_command_ends()


@pytest.mark.parametrize("command", ["ensemble.infer", "core.data.pack"])
def test_a_folder_of_predictions_or_of_a_pack_that_is_removed_or_moved(
    command: str, room: Room, data: Path, task: Task, soak: bool, fault: Fault
) -> None:
    work = room.path / "work"
    places = {"data": data, "run": task.undisturbed / "out", "work": work / "deep"}
    other = Task(room, command, arguments_of(command, **places))
    fault("folder removed or moved while it is written", 2 * len(middle_of(other, soak)))
    for calls in ([["remove", str(work / "deep")]], [["move", str(work / "deep"), f"{work}/away"]]):
        for number in middle_of(other, soak):
            other.begin()
            told = other.run({"at": number, "call": calls}).sentence()
            assert str(work / "deep") in told
            assert not (other.seen / "deep").exists()
            if (other.seen / "away").exists():
                (other.seen / "away").rename(other.seen / "deep")
            other.check_the_same_command_ends()


def test_a_folder_that_becomes_read_only(
    mounts: Room, task: Task, soak: bool, fault: Fault
) -> None:
    numbers = [*middle_of(task, soak, "folds.csv"), task.number("open", f".{STATE}")]
    fault("folder that becomes read-only", len(numbers))
    for number in numbers:
        task.begin()
        told = task.run({"at": number, "call": [["cover", str(task.work / "out")]]}).sentence()
        mounts.system("umount", task.work / "out")
        assert "cannot be written: Read-only file system" in told
        assert "/." not in told, "the user knows no temporary file"
        task.check_the_same_command_ends()


def test_a_read_only_folder_is_told_before_anything_is_computed(
    mounts: Room, data: Path, task: Task, fault: Fault
) -> None:
    closed, work = mounts.notes / "closed", mounts.path / "work"
    closed.mkdir(exist_ok=True)
    mounts.system("mount", "-t", "tmpfs", "-o", "ro", "closed", closed)
    task.begin()
    # for couplings any checkpoint does: it is refused later
    places = {"data": data, "run": task.undisturbed / "out", "coupled": task.undisturbed / "out"}
    tried = {
        command: arguments_of(command, **places, work=closed)
        for command in COMMANDS
        if command != "methods.label_coupling.couplings"
    }
    tried["methods.standard_head.train"] = flags(data, closed / "out", "--run_folds", 1)
    tried["methods.label_coupling.train"] = flags(
        *(data, work / "out", "--run_folds", 1, "--test_csv", data / "test.csv"),
        *("--out_csv", closed / "deep" / "test.csv"),
    )
    fault("read-only folder", len(tried))
    for command, arguments in tried.items():
        ended = mounts.call(command, *arguments)
        told = ended.sentence()
        assert str(closed) in told, command
        assert "Read-only file system" in told, command
        assert "epoch" not in ended.out
        assert not list(mounts.seen.rglob("*.*")), command
    mounts.system("umount", closed)


def test_a_folder_without_rights(tmp_path: Path) -> None:
    ours = [above for above in tmp_path.parents if above.name.startswith(("pytest", "popen"))]
    for above in (tmp_path, *ours):
        above.chmod(0o755)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.seteuid(65534)
        else:
            tmp_path.chmod(0o555)
        with pytest.raises(UserError, match=r"new/p\.csv cannot be written: Permission denied"):
            check_writable(tmp_path / "new" / "p.csv", ())
    finally:
        if as_root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    check_writable(tmp_path / "new" / "p.csv", ())
    assert not list(tmp_path.iterdir())


def test_a_log_on_a_full_disk(task: Task, data: Path, tmp_path: Path, fault: Fault) -> None:
    fault("full disk under the log", 4)
    task.begin()
    ended = task.run(out="/dev/full")
    assert "what is printed cannot be written: No space left on device" in ended.sentence()
    task.check_the_same_command_ends()
    task.begin()
    assert task.run(out="/dev/full", error="/dev/full").code == 2
    task.check_the_same_command_ends()
    # what the interpreter does at its end, with and without a buffer
    command = [sys.executable, "-m", "core.data.phantom", "--images", "20", "--size", "32"]
    for number, unbuffered in enumerate(["", "1"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*command, str(tmp_path / str(number))],
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "what is printed cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("size", ["1m", "4k"])
def test_a_small_shared_memory(
    size: str, mounts: Room, data: Path, task: Task, fault: Fault
) -> None:
    """As many containers have it: neither a bus error nor a wait without end."""
    fault("too small a /dev/shm", 1)
    task.begin()
    mounts.system("mount", "-t", "tmpfs", "-o", f"size={size}", "shm", "/dev/shm")
    large = ["--run_folds", 1, "--num_workers", 2, "--img_size", 448, "--batch_size", 8]
    arguments = flags(data, mounts.path / "work" / "out", *large)
    told = mounts.call("methods.standard_head.train", *arguments).sentence()
    mounts.system("umount", "/dev/shm")
    assert "/dev/shm has" in told
    assert "give --num_workers 0, or enlarge /dev/shm" in told
