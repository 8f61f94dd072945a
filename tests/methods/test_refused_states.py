"""Damaged resume states and those of other runs."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.models.checkpoint import load_tensors, save_tensors
from core.runs.log import append_row, truncate_log
from tests.conftest import Once, Train
from tests.helpers.training.small_run import MODEL, flags

STATE = f"{MODEL}_fold1.state.safetensors"


def fill_disk_at(monkeypatch: pytest.MonkeyPatch, ending: str, occurrence: int) -> None:
    """Let the disk be full at this occurrence of a write to a file with this ending."""
    replace, seen = Path.replace, 0

    def full(self: Path, target: Path) -> Path:
        nonlocal seen
        if str(target).endswith(ending):
            seen += 1
            if seen == occurrence:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)


@pytest.fixture
def half_way(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, once: Once
) -> tuple[Path, list[str]]:
    """A run that ended with a full disk at the state of its second epoch, and its command."""

    def train_half(folder: Path) -> None:
        with monkeypatch.context() as patch:
            fill_disk_at(patch, ".state.safetensors", 2)
            code, _, error = train(*flags(phantom, folder / "out", "--run_folds", 1))
        assert code == 2
        assert f"{STATE} cannot be written: No space left on device" in error
        assert error.count("\n") == 1

    shutil.copytree(once("half_way", train_half) / "out", tmp_path / "out")
    return tmp_path / "out", flags(phantom, tmp_path / "out", "--run_folds", 1)


def refused(train: Train, out: Path, arguments: list[str]) -> str:
    """Error message of the command; checks that it changed nothing."""
    before = bytes_in(out)
    code, _, error = train(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert bytes_in(out) == before
    return error


def bytes_in(out: Path) -> dict[Path, bytes]:
    """The files of a run, without env.json, which lists all starts of it."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "env.json"]
    return {path: path.read_bytes() for path in files}


def test_a_truncated_row_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    append_row(path, {"fold": 1, "epoch": 1, "mAP": 0.25})
    whole = path.read_text()
    for part in ("1", "1,", "1,2", "1,2,0."):
        path.write_text(whole + part)
        truncate_log(path, 1, 1)
        assert path.read_text() == whole, part
    path.write_text("fold,ep")
    truncate_log(path, 1, 0)
    append_row(path, {"fold": 1, "epoch": 1, "mAP": 0.25})
    assert path.read_text() == whole


def test_a_state_that_is_spoiled(
    half_way: tuple[Path, list[str]], train: Train, finished: tuple[Path, str]
) -> None:
    """Cut short, of a newer format, or of another fold: a file of that name that was put there."""
    out, arguments = half_way
    state = out / STATE
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    assert f"{state} is not a valid safetensors file" in refused(train, out, arguments)
    state.write_bytes(whole)
    tensors, facts = load_tensors(state)
    save_tensors(state, tensors, facts | {"format_version": 99})
    assert "newer than" in refused(train, out, arguments)
    shutil.copy(finished[0] / STATE.replace("fold1", "fold2"), state)
    sentence = f"{state} is the state of a run with other settings, data or folds"
    assert sentence in refused(train, out, arguments)
    state.write_bytes(whole)
    assert train(*arguments)[0] == 0
    (out / f"{MODEL}_fold1.safetensors").unlink()
    assert f"{MODEL}_fold1.safetensors is missing" in refused(train, out, arguments)


def test_overwrite_does_not_trust_a_changed_config(
    half_way: tuple[Path, list[str]], train: Train
) -> None:
    out, arguments = half_way
    settings = json.loads((out / "config.json").read_text())
    changes: list[dict[str, Any]] = [{"model": "../elsewhere/model"}, {"folds": "all"}]
    for change in changes:
        (out / "config.json").write_text(json.dumps(settings | change))
        assert "config.json was changed" in refused(train, out, [*arguments, "--overwrite"])
