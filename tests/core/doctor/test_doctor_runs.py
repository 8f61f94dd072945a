"""Doctor on finished, stopped and damaged runs."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from core.doctor.__main__ import main
from core.doctor.checkpoints import check_checkpoint
from core.doctor.runs import check_run
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from tests.conftest import Call
from tests.helpers.doctor import findings_of, marked
from tests.helpers.training.small_run import MODEL


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
    findings = findings_of(check_run, finished[0])
    assert {mark for mark, _ in findings} == {"✓"}
    good = marked(findings, "✓")
    images = len(pd.read_csv(phantom / "train.csv"))
    for part in (
        "2 folds trained to the end: 1, 2",
        f"out-of-fold predictions of {images} images",
        f"{MODEL}_fold1.safetensors: standard_head, {MODEL}, 15 classes",
        "32 px",
        "valid checksum",
    ):
        assert part in good
    assert sorted(path.stat().st_mtime_ns for path in finished[0].rglob("*")) == before


def test_a_run_that_was_stopped(run: Path) -> None:
    first, second = (run / f"{MODEL}_fold{fold}.state.safetensors" for fold in (1, 2))
    progress = load_tensors(first)[1]["progress"]
    spoil(first, progress=progress | {"finished": False, "epoch": 1, "update": 2})
    second.unlink()
    bad = marked(findings_of(check_run, run), "✗")
    assert "fold 1 stopped after 1 epochs and 2 updates, fold 2 has no saved state yet" in bad
    command = json.loads((run / "env.json").read_text())["starts"][-1]["command"]
    assert f"rerun `python {command[0]} --preset" in bad
    assert bad.endswith("to resume")


def test_a_run_that_is_trained_now(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / f"{MODEL}_fold2.state.safetensors").unlink()
    monkeypatch.setattr("core.doctor.runs.is_locked", lambda path: path == run)
    assert "a process is training here now" in marked(findings_of(check_run, run), "!")


def test_a_run_that_lost_files(run: Path) -> None:
    (run / "report.html").unlink()
    (run / f"{MODEL}_fold1.safetensors").unlink()
    table = pd.read_csv(run / f"{MODEL}_fold2_val.csv", dtype=str)
    table[1:].to_csv(run / f"{MODEL}_fold2_val.csv", index=False)
    bad = marked(findings_of(check_run, run), "✗")
    assert "there is no report.html: rerun `python" in bad
    assert f"{MODEL}_fold1.safetensors is not there" in bad
    assert f"images of folds.csv: {table['ImageID'][0]} in only one of the two" in bad
    # a folds.csv that was changed is written again before any fold is trained again
    folds = pd.read_csv(run / "folds.csv", dtype=str)
    folds[:0].to_csv(run / "folds.csv", index=False)
    bad = marked(findings_of(check_run, run), "✗")
    assert bad.count("rerun the training's command, which writes folds.csv again") == 2


@pytest.mark.parametrize(
    "changed", [*({"model": name} for name in ("../x", "", "..")), {"folds": 2e9}, None]
)
def test_a_folder_that_is_not_a_run(run: Path, changed: dict[str, object] | None) -> None:
    settings = json.loads((run / "config.json").read_text())
    text = "{" if changed is None else json.dumps(settings | changed)
    (run / "config.json").write_text(text)
    findings = findings_of(check_run, run)
    sentence = (
        "cannot be read (it is not valid JSON" if changed is None else "was changed: restore it"
    )
    assert sentence in marked(findings, "✗")
    assert "need a valid config.json" in marked(findings, "-")


def test_a_folder_that_is_not_there(run: Path, call: Call) -> None:
    code, out, _ = call(main, "--run", run.with_name("rum"))
    assert code == 1
    assert "name the --out_dir of a training" in " ".join(out.split())


def test_a_resume_state_is_not_a_checkpoint(run: Path) -> None:
    state = run / f"{MODEL}_fold1.state.safetensors"
    bad = marked(findings_of(check_checkpoint, state), "✗")
    assert bad == f"{state} is a resume state: give --run {run}"
    data = state.read_bytes()
    for spoiled in (data[:100], data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]):
        state.write_bytes(spoiled)
        sentence = "move it away to restart its fold"
        with pytest.raises(UserError, match=f"{sentence}; `python -m core.doctor --run"):
            load_tensors(state)
        assert sentence in marked(findings_of(check_run, run), "✗")


def test_checkpoints_that_are_damaged(run: Path) -> None:
    path, other = (run / f"{MODEL}_fold{fold}.safetensors" for fold in (1, 2))
    whole = path.read_bytes()
    for data, sentence in (
        (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], "its checksum does not match"),
        (whole[:1000], "not a valid safetensors file"),
    ):
        path.write_bytes(data)
        bad = marked(findings_of(check_checkpoint, path), "✗")
        assert sentence in bad
        # no pointer to the doctor from itself
        assert bad.endswith(". Copy it again, or train it again")
    tensors, facts = load_tensors(other)
    name = next(name for name in tensors if re.search(r"head.*weight", name))
    tensors[name].view(-1)[0] = float("nan")
    save_tensors(other, tensors, facts)
    bad = marked(findings_of(check_checkpoint, other), "✗")
    assert f"has values that are not finite ({name})" in bad
    spoil(other, format_version=99)
    assert "newer than" in marked(findings_of(check_checkpoint, other), "✗")
