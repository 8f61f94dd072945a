"""Read-only, removed or moved folders, a full log and a small /dev/shm."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from core.io.atomic import check_writable
from core.io.lock import LOCK
from tests.helpers.fault_table import Fault
from tests.helpers.faults.commands import OTHERS, data_with_predictions, disk_command
from tests.helpers.faults.launches import TRAIN, Launches, at
from tests.helpers.faults.trials import Trial
from tests.helpers.training.small_run import MODEL, flags

STATE = f"{MODEL}_fold1.state.safetensors"
FULL_LOG = "the output cannot be written: No space left on device"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mounts and /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_with_predictions(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one(launches: Launches, data: Path) -> Trial:
    """A training on the small disk."""
    command = disk_command("standard_head", launches.room / "work", data=data)
    return Trial(command, launches, threads=True)


def middle_of(one: Trial, soak: bool, begun: str) -> list[int]:
    """Steps of a command after that with the file `begun`, before its end."""
    first = max(n for n, (_, name) in enumerate(one.steps[:-1], start=2) if name.endswith(begun))
    # a tracker alone does not end a training
    own = (n for n in range(first, len(one.steps)) if "tensorboard" not in one.steps[n - 1][1])
    numbers = [*own]
    return numbers[::12] if soak else numbers[len(numbers) // 3 :][:1]


def of_training(one: Trial, soak: bool) -> list[int]:
    # between two files a run might continue in another folder unnoticed
    return [*middle_of(one, soak, "folds.csv"), one.number("open", f".{STATE}")]


@pytest.mark.parametrize(
    "way", ["removed", pytest.param("moved", marks=pytest.mark.soak), "replaced"]
)
def test_a_run_folder_that_is_removed_or_moved(
    way: str, one: Trial, soak: bool, fault: Fault
) -> None:
    out, seen, away = one.command.folder / "out", one.folder / "out", one.folder / "out_moved"
    calls = [["move", str(out), f"{out}_moved"]]
    if way == "removed":
        calls = [["remove", str(out)]]
    elif way == "replaced":
        calls += [["mkdir", str(out)], ["mknod", str(out / LOCK)]]
    for number in of_training(one, soak):
        fault("folder removed or moved while it is written", 1)
        one.begin()
        sentence = one.run(at("step", number, calls=calls)).refusal()
        assert str(out) in sentence
        assert "removed or moved" in sentence or "No such file" in sentence
        # nothing in its place, nor elsewhere
        assert seen.exists() == (way == "replaced")
        assert {path.name for path in one.folder.iterdir()} <= {"out", "out_moved"}
        if way == "replaced":
            # one file, the record of one epoch, or the report may be under way
            left = {path.name for path in seen.iterdir()} - {LOCK}
            assert len(left) <= 1 or not {"config.json", STATE} & left
        if way != "removed":
            shutil.rmtree(seen, ignore_errors=True)
            away.rename(seen)
        one.finish()


@pytest.mark.parametrize("name", ["ensemble.infer", "core.data.pack"])
def test_a_folder_of_predictions_or_of_a_pack_that_is_removed_or_moved(
    name: str, one: Trial, data: Path, soak: bool, fault: Fault
) -> None:
    work, run = one.command.folder, one.undisturbed / "out"
    command = disk_command(name, work / "deep", data=data, run=run)
    other = Trial(replace(command, folder=work), one.launches, threads=True)
    deep, away = other.folder / "deep", other.folder / "away"
    for calls in ([["remove", f"{work}/deep"]], [["move", f"{work}/deep", f"{work}/away"]]):
        for number in middle_of(other, soak, ".lock"):
            fault("folder removed or moved while it is written", 1)
            other.begin()
            assert f"{work}/deep" in other.run(at("step", number, calls=calls)).refusal()
            assert not deep.exists()
            if away.exists():
                away.rename(deep)
            other.finish()


def test_a_folder_that_becomes_read_only(
    mounts: Launches, one: Trial, soak: bool, fault: Fault
) -> None:
    out = one.command.folder / "out"
    for number in of_training(one, soak):
        fault("folder that becomes read-only", 1)
        one.begin()
        sentence = one.run(at("step", number, calls=[["cover", str(out)]])).refusal()
        mounts.system("umount", out)
        assert "cannot be written: Read-only file system" in sentence
        assert "/." not in sentence, "the user knows no temporary file"
        one.finish()


def test_a_read_only_folder_is_reported_before_anything_is_computed(
    mounts: Launches, data: Path, one: Trial, fault: Fault
) -> None:
    closed, work = mounts.folder / "closed", one.command.folder
    closed.mkdir()
    mounts.system("mount", "-t", "tmpfs", "-o", "ro", "closed", closed)
    one.begin()
    # for couplings any checkpoint does: it is refused later
    run = one.undisturbed / "out"
    names = [name for name in OTHERS if not name.endswith("couplings")]
    commands = [disk_command(name, closed, data=data, run=run) for name in names]
    commands.append(disk_command("standard_head", closed, data=data))
    coupled = disk_command("label_coupling", work, data=data)
    words = [*coupled.arguments, "--out_csv", str(closed / "deep" / "test.csv")]
    commands.append(replace(coupled, arguments=words))
    fault("read-only folder", len(commands))
    for command in commands:
        ended = mounts.start(command.module, *command.arguments)
        ended.wait()
        sentence = ended.refusal()
        assert str(closed) in sentence, command.name
        assert "Read-only file system" in sentence, command.name
        assert "epoch" not in ended.printed
        assert not list(one.folder.rglob("*.*")), command.name
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


def test_a_log_on_a_full_disk(launches: Launches, one: Trial, tmp_path: Path, fault: Fault) -> None:
    """Also what the interpreter writes at its end."""
    fault("full disk under the log", 3)
    one.begin()
    assert FULL_LOG in one.run(stdout="/dev/full").refusal()
    one.finish()
    one.begin()
    assert one.run(stdout="/dev/full", stderr="/dev/full").code == 2
    one.finish()
    words = ["--images", "20", "--size", "32"]
    ended = launches.start(
        "core.data.phantom", tmp_path / "0", *words, stdout="/dev/full", finalize=True
    )
    ended.wait()
    assert FULL_LOG in ended.refusal()


@pytest.mark.parametrize("size", ["1m", "4k"])
def test_a_small_shared_memory(
    size: str, mounts: Launches, data: Path, one: Trial, fault: Fault
) -> None:
    """As many containers have it: neither a bus error nor a wait without end."""
    fault("too small a /dev/shm", 1)
    one.begin()
    mounts.system("mount", "-t", "tmpfs", "-o", f"size={size}", "shm", "/dev/shm")
    large = ["--run_folds", 1, "--num_workers", 2, "--img_size", 448, "--batch_size", 8]
    ended = mounts.start(TRAIN, *flags(data, one.command.folder / "out", *large))
    ended.wait()
    mounts.system("umount", "/dev/shm")
    sentence = ended.refusal()
    assert "/dev/shm has" in sentence
    assert "give --num_workers 0, or enlarge /dev/shm" in sentence
