"""Doctor command on a small dataset, and its findings as a list."""

import io
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.doctor import environment
from core.doctor.__main__ import main
from core.doctor.findings import Findings
from tests.conftest import Call

Found = list[tuple[str, str]]
Doctor = Callable[..., tuple[int, Found, str]]
ROWS = 30
BEGINS = re.compile(r"^ *(\d+) (✓|!|✗|-) ", re.MULTILINE)


@pytest.fixture(autouse=True)
def sound_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the checks of the computer (slow; tested in test_doctor_environment.py)."""
    for name in ("packages", "threads", "disk", "memory"):
        monkeypatch.setattr(environment, f"check_{name}", lambda *_: None)


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """Some rows of the phantom with their images, for a test to change."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    table = pd.read_csv(phantom / "train.csv", dtype=str)[:ROWS]
    table[["ImageID", "PatientID", "Effusion", "Normal"]].to_csv(folder / "train.csv", index=False)
    for name in table["ImageID"]:
        shutil.copy(phantom / "images" / name, folder / "images" / name)
    return folder


@pytest.fixture
def doctor(call: Call, data: Path) -> Doctor:
    """The command on `data` and with more flags: (exit code, findings, what it printed)."""

    def run(*more: object) -> tuple[int, Found, str]:
        flags = ("--train_csv", data / "train.csv", "--train_dir", data / "images")
        code, out, error = call(main, *flags, "--num_workers", 0, "--folds", 2, *more)
        return code, listed(out), out + error

    return run


def edit(data: Path, change: Callable[[pd.DataFrame], Any], name: str = "train.csv") -> None:
    """Write what `change` makes of train.csv to the file `name`."""
    table = pd.read_csv(data / "train.csv", dtype=str)
    changed = change(table)
    (table if changed is None else changed).to_csv(data / name, index=False)


def listed(text: str) -> Found:
    """(mark, sentence) of each finding, in their order; checks that they are numbered from 1."""
    _, *parts = BEGINS.split(text)
    assert [*map(int, parts[::3])] == [*range(1, len(parts) // 3 + 1)]
    whole = [" ".join(re.split(r"\n(?=\S|\n)", one)[0].split()) for one in parts[2::3]]
    return list(zip(parts[1::3], whole, strict=True))


def findings_of(check: Callable[..., object], *arguments: Any) -> Found:
    """The findings of one check."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(out):
        Findings().attempt(check, *arguments)
    out.seek(0)
    return listed(out.read())


def marked(findings: Found, mark: str) -> str:
    """The sentences with this mark."""
    return "\n".join(sentence for one, sentence in findings if one == mark)
