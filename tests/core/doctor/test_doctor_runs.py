"""What the doctor says of a finished run, and of one that was stopped or spoiled."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from core.doctor.__main__ import main
from core.doctor.checkpoints import check_checkpoint
from core.doctor.runs import check_run
from core.errors import UserError, nearest
from core.models.checkpoint import load_tensors, save_tensors
from core.runtime.environment import told_changes
from tests.conftest import Call
from tests.helpers.doctor_output import marked, told
from tests.helpers.training.small_run import MODEL

HOLD = """
import sys
from pathlib import Path
from core.io.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


@pytest.fixture
def run(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A finished run that a test may spoil."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def spoil(path: Path, **changed: object) -> None:
    """Write other facts into a file of tensors, whole."""
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, facts | changed)


def test_a_finished_run(finished: tuple[Path, str], phantom: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in finished[0].rglob("*"))
    findings = told(check_run, finished[0])
    assert {mark for mark, _ in findings} == {"✓"}
    good = marked(findings, "✓")
    images = len(pd.read_csv(phantom / "train.csv"))
    for part in (
        "2 folds trained to the end: 1, 2",
        f"out-of-fold predictions of {images} images",
        # two epochs and one of the head, of two folds
        "metrics.csv: 6 epochs, every loss finite",
        f"{MODEL}_fold1.safetensors: standard_head, {MODEL}, 15 classes",
        "32 px",
        "its checksum fits",
    ):
        assert part in good
    assert sorted(path.stat().st_mtime_ns for path in finished[0].rglob("*")) == before


def test_a_run_that_was_stopped(run: Path) -> None:
    first, second = (run / f"{MODEL}_fold{fold}.state.safetensors" for fold in (1, 2))
    progress = load_tensors(first)[1]["progress"]
    spoil(first, progress=progress | {"finished": False, "epoch": 1, "update": 2})
    second.unlink()
    bad = marked(told(check_run, run), "✗")
    assert "fold 1 stopped in epoch 2, update 2, fold 2 has not saved anything yet" in bad
    command = json.loads((run / "env.json").read_text())["starts"][-1]["command"]
    assert f"the same command goes on; the last start was `python {command[0]} --preset" in bad
    # a lock is that of a process
    words = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert "a process is training here now" in marked(told(check_run, run), "!")
        holder.communicate(b"\n")
    assert "the same command goes on" in marked(told(check_run, run), "✗")


def test_a_run_that_lost_files(run: Path) -> None:
    (run / "report.html").unlink()
    (run / f"{MODEL}_fold1.safetensors").unlink()
    table = pd.read_csv(run / f"{MODEL}_fold2_val.csv", dtype=str)
    table[1:].to_csv(run / f"{MODEL}_fold2_val.csv", index=False)
    metrics = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(metrics[:-1]))
    bad = marked(told(check_run, run), "✗")
    assert "there is no report.html: the same command writes it" in bad
    assert f"there is no checkpoint {MODEL}_fold1.safetensors in {run}: did you mean" in bad
    assert "in one of the two only" in bad
    assert str(table.iloc[0, 0]) in bad
    assert "does not have one row for each epoch of fold 2" in bad


def test_what_is_no_run(run: Path, tmp_path: Path, call: Call) -> None:
    code, out, _ = call(main, "--run", tmp_path / "rum")
    assert code == 1
    assert "did you mean 'run'?" in " ".join(out.split())
    (run / "config.json").write_text("{")
    findings = told(check_run, run)
    assert "config.json cannot be read (it is no JSON" in marked(findings, "✗")
    assert "need a config.json that can be read" in marked(findings, "-")
    (run / "config.json").write_text(json.dumps({"model": "../x", "folds": 2}))
    assert "was changed" in marked(told(check_run, run), "✗")
    for model in ("", ".", ".."):
        (run / "config.json").write_text(json.dumps({"model": model, "folds": 2}))
        assert "was changed" in marked(told(check_run, run), "✗"), model
    (tmp_path / "runs").mkdir()
    bad = marked(told(check_run, tmp_path / "runs" / "nope"), "✗")
    assert bad == f"there is no folder nope in {tmp_path / 'runs'}"
    (tmp_path / "runs" / "plots").mkdir()
    bad = marked(told(check_run, tmp_path / "runs" / "nope"), "✗")
    assert bad == f"there is no folder nope in {tmp_path / 'runs'}; it has plots"


def test_folds_that_were_changed_are_to_blame_for_themselves(run: Path) -> None:
    table = pd.read_csv(run / "folds.csv", dtype=str)
    for changed in (table[:0], table.assign(fold=table["fold"] + ".0")):
        changed.to_csv(run / "folds.csv", index=False)
        bad = marked(told(check_run, run), "✗")
        assert f"{run / 'folds.csv'} has no image of fold 1, which predicted" in bad
        assert "the same command writes it anew" in bad
        assert "remove" not in bad


def test_a_state_is_no_checkpoint(run: Path) -> None:
    state = run / f"{MODEL}_fold1.state.safetensors"
    bad = marked(told(check_checkpoint, state), "✗")
    assert bad == f"{state} is a resume state: give --run {run}"
    save_tensors(state, {"moment": torch.ones(3)}, load_tensors(state)[1])
    data = state.read_bytes()
    for spoiled in (data[:100], data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]):
        state.write_bytes(spoiled)
        with pytest.raises(UserError) as raised:
            load_tensors(state)
        assert "move it away, and its fold starts anew; `python -m core.doctor --run" in str(
            raised.value
        )
        assert "move it away, and its fold starts anew" in marked(told(check_run, run), "✗")


def test_checkpoints(run: Path) -> None:
    path, other = (run / f"{MODEL}_fold{fold}.safetensors" for fold in (1, 2))
    assert told(check_checkpoint, path)[0][0] == "✓"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    mark, sentence = told(check_checkpoint, path)[0]
    assert (mark, "is damaged: its checksum does not fit" in sentence) == ("✗", True)
    # no pointer to the doctor from itself
    assert "core.doctor" not in sentence
    path.write_bytes(data[:1000])
    bad = marked(told(check_checkpoint, path), "✗")
    assert "no whole safetensors file" in bad
    assert bad.endswith(". Copy it anew, or train it")
    spoil(other, format_version=99)
    assert "newer than" in marked(told(check_checkpoint, other), "✗")


def test_a_checkpoint_with_weights_that_are_not_finite(run: Path) -> None:
    path = run / f"{MODEL}_fold2.safetensors"
    tensors, facts = load_tensors(path)
    name = next(name for name in tensors if re.search(r"head.*weight", name))
    tensors[name].view(-1)[0] = float("nan")
    save_tensors(path, tensors, facts)
    mark, sentence = told(check_checkpoint, path)[0]
    assert mark == "✗"
    assert f"holds numbers that are not finite ({name})" in sentence


def test_a_build_of_the_same_version_is_no_other_software() -> None:
    def changes(before: str, now: str) -> str:
        return told_changes([{"versions": {"torch": one}} for one in (before, now)])

    assert not changes("2.14.1+cu130", "2.14.1")
    assert not changes("2.14.1", "2.14.1+cu130")
    assert "2.14.1+cu130 then, 2.14.1+cpu now" in changes("2.14.1+cu130", "2.14.1+cpu")
    assert "2.14.1+cu130 then, 2.14.2 now" in changes("2.14.1+cu130", "2.14.2")


def test_without_names_there_is_none_nearest() -> None:
    assert nearest("x", []) == ""
    assert nearest("x", ["abc"]) == "; it has abc"
