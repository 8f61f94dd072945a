"""A state that is spoiled or another run's is refused."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.models.checkpoint import load_tensors, save_tensors
from core.runs.log import append_row, cut_back
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
    """The sentence with which the command ends; checks that it changed nothing."""
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


def test_a_row_that_was_cut_short_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    append_row(path, {"fold": 1, "epoch": 1, "mAP": 0.25})
    whole = path.read_text()
    for part in ("1", "1,", "1,2", "1,2,0."):
        path.write_text(whole + part)
        cut_back(path, 1, 1)
        assert path.read_text() == whole, part
    path.write_text("fold,ep")
    cut_back(path, 1, 0)
    append_row(path, {"fold": 1, "epoch": 1, "mAP": 0.25})
    assert path.read_text() == whole


def test_a_state_that_is_spoiled(half_way: tuple[Path, list[str]], train: Train) -> None:
    """Cut short, of a newer format, a checkpoint, or with a progress that is not understood."""
    out, arguments = half_way
    state = out / STATE
    whole = state.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        state.write_bytes(whole[:length])
        assert f"{state} is no whole safetensors file" in refused(train, out, arguments)
    shutil.copy(out / f"{MODEL}_fold1.safetensors", state)
    assert str(state) in refused(train, out, arguments)
    state.write_bytes(whole)
    tensors, facts = load_tensors(state)
    save_tensors(state, tensors, facts | {"format_version": 99})
    assert "newer than" in refused(train, out, arguments)
    spoiled: list[dict[str, Any]] = [
        *({"epoch": "1"}, {"update": -1}, {"finished": 1}),
        *({"best": "high"}, {"epoch": True}, {"day": 1}),
    ]
    for change in spoiled:
        save_tensors(state, tensors, facts | {"progress": facts["progress"] | change})
        assert f"{state} is no state of a run" in refused(train, out, arguments), change
    state.write_bytes(whole)
    assert train(*arguments)[0] == 0


def test_moments_of_another_shape(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = flags(phantom, out, "--run_folds", 1, "--warmup_head_epochs", 0)
    with monkeypatch.context() as patch:
        fill_disk_at(patch, ".state.safetensors", 2)
        assert train(*arguments)[0] == 2
    tensors, facts = load_tensors(out / STATE)
    for change in ({"optimizer.0.exp_avg": torch.zeros(3)}, {"optimizer.0.junk": torch.zeros(2)}):
        save_tensors(out / STATE, tensors | change, facts)
        code, _, error = train(*arguments)
        assert code == 2
        assert f"{out / STATE} does not fit its optimiser" in error


def test_a_checkpoint_that_is_gone_is_missed(
    half_way: tuple[Path, list[str]], train: Train
) -> None:
    out, arguments = half_way
    assert train(*arguments)[0] == 0
    (out / f"{MODEL}_fold1.safetensors").unlink()
    assert f"{MODEL}_fold1.safetensors is gone" in refused(train, out, arguments)


@pytest.mark.parametrize("change", [{"model": "../elsewhere/model"}, {"folds": "all"}], ids=str)
def test_overwrite_does_not_trust_a_changed_config(
    change: dict[str, Any], half_way: tuple[Path, list[str]], train: Train
) -> None:
    out, arguments = half_way
    settings = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(settings | change))
    assert "config.json was changed" in refused(train, out, [*arguments, "--overwrite"])


def test_a_state_of_another_run(
    half_way: tuple[Path, list[str]], phantom: Path, tmp_path: Path, train: Train
) -> None:
    """Of other settings, labels or another fold: a file of that name that was put there."""
    out, arguments = half_way
    others = ("--seed 5", "--loss bce", "--labels Effusion,Mass", "--run_folds 2")
    for number, other in enumerate(others):
        theirs = tmp_path / f"theirs_{number}"
        assert train(*flags(phantom, theirs, "--run_folds", 1, *other.split()))[0] == 0
        (source,) = theirs.glob("*.state.safetensors")
        shutil.copy(source, out / STATE)
        sentence = refused(train, out, arguments)
        assert f"{out / STATE} is the state of a run with other settings, data or folds" in sentence


def test_a_state_of_other_data(
    half_way: tuple[Path, list[str]], phantom: Path, tmp_path: Path, train: Train
) -> None:
    out, arguments = half_way
    rows = (phantom / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(rows[:-1]) + "\n")
    settings = json.loads((out / "config.json").read_text())
    assert settings["train_csv"] == [str(phantom / "train.csv")]
    # the same settings, and a file that holds other images than it did
    settings["train_csv"] = [str(tmp_path / "train.csv")]
    (out / "config.json").write_text(json.dumps(settings))
    sentence = refused(train, out, [*arguments, "--train_csv", str(tmp_path / "train.csv")])
    assert "that the same CSV now gives" in sentence
