"""The doctor's command on a small dataset that a test may spoil."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.doctor import machine, packages
from core.doctor.__main__ import main
from tests.conftest import Call
from tests.helpers.doctor_output import listed

Doctor = Callable[..., tuple[int, list[tuple[str, str]], str]]
ROWS = 30


@pytest.fixture(autouse=True)
def sound_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The computer is another file's matter (test_doctor_machine.py), and takes time."""
    for module, name in (
        (packages, "check_packages"),
        (packages, "check_extras"),
        (machine, "check_threads"),
        (machine, "check_disk"),
        (machine, "check_memory"),
    ):
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, lambda *_: None)


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """Some of the phantom's rows with their images, which a test may spoil."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    table = pd.read_csv(phantom / "train.csv", dtype=str)[:ROWS]
    labels = ["Effusion", "Normal"]
    table[["ImageID", "PatientID", *labels]].to_csv(folder / "train.csv", index=False)
    for name in table["ImageID"]:
        shutil.copy(phantom / "images" / name, folder / "images" / name)
    return folder


@pytest.fixture
def doctor(call: Call, data: Path) -> Doctor:
    """The command on `data` and with more flags: (exit code, findings, what it printed)."""

    def run(*more: object, train: bool = True) -> tuple[int, list[tuple[str, str]], str]:
        own = ("--train_csv", data / "train.csv", "--train_dir", data / "images")
        flags = (*(own if train else ()), "--num_workers", 0, "--folds", 2, *more)
        code, out, error = call(main, *flags)
        return code, listed(out), out + error

    return run


def edit(data: Path, change: Callable[[pd.DataFrame], object], name: str = "train.csv") -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    changed = change(table)
    (table if changed is None else changed).to_csv(data / name, index=False)  # type: ignore[attr-defined]
