"""Resume with the same command, and errors for files of another run."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.metrics import Evaluation, evaluate
from core.models.checkpoint import load_facts
from tests.conftest import Train
from tests.helpers.training.small_run import MODEL, contents, flags
from tests.helpers.training.stopped_training import stopped_at


def test_the_same_command_again_changes_nothing_and_another_one_is_refused(
    finished_copy: Path, phantom: Path, train: Train
) -> None:
    out = finished_copy
    before = contents(out)
    code, printed, _ = train(*flags(phantom, out))
    assert code == 0
    assert printed.count("finished before") == 2
    assert "mAUROC" in printed
    assert contents(out) == before
    code, _, error = train(*flags(phantom, out, "--backbone_lr", "0.5"))
    assert code == 2
    assert "backbone_lr (0.0002 there, 0.5 now)" in error
    assert "--overwrite" in error
    start = f"another --out_dir and --init_from {out / MODEL}_fold1.safetensors to start from its"
    assert f"{start} weights (which saw images that other folds validate on)" in error
    assert contents(out) == before


def test_overwrite_restarts_and_spares_other_files(
    finished_copy: Path, phantom: Path, train: Train
) -> None:
    out = finished_copy
    (out / "notes.txt").write_text("mine")
    (out / "labels.csv").write_text("of the old run")
    again = flags(phantom, out, "--run_folds", 1, "--seed", 5, "--overwrite")
    code, printed, _ = train(*again)
    assert code == 0
    assert "finished before" not in printed
    assert json.loads((out / "config.json").read_text())["seed"] == 5
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "labels.csv").read_text().startswith("ImageID,PatientID,")
    assert len(pd.read_csv(out / "metrics.csv")) == 3


def test_a_truncated_image_stops_the_run_and_leaves_it_resumable(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)
    folds = pd.read_csv(finished[0] / "folds.csv")
    # an image of fold 1 is read in the middle of it: at the first validation
    victim = data / "images" / folds.loc[folds["fold"] == 1, "ImageID"].iloc[5]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    options = ("--save_minutes", "0.00001")
    code, _, error = train(*flags(data, out, *options))
    assert code == 2
    assert victim.name in error
    assert error.count("\n") == 1
    assert (out / f"{MODEL}_fold1.state.safetensors").exists()
    victim.write_bytes(whole)
    code, printed, _ = train(*flags(data, out, *options))
    assert code == 0
    assert "fold 1/2  resuming at epoch 1 of 3 (1 head + 2 all), " in printed
    assert "fold 2/2  1 head + 2 all epochs, from random weights (--no-pretrained)" in printed
    assert printed.count("random weights") == 1
    ours, theirs = contents(out), contents(finished[0])
    for name in set(ours) - {"config.json"}:
        # checkpoints name the data's folder among their settings
        if not name.endswith(".safetensors"):
            assert ours[name] == theirs[name], name


def test_a_stop_waits_for_no_more_than_its_update(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    words = ["--warmup_head_epochs", 0, "--log_every", 1000, "--save_minutes", 1000]
    stopped_at(train, 2, *flags(phantom, out, *words))
    facts = load_facts(out / f"{MODEL}_fold1.state.safetensors")
    assert facts["progress"]["total_updates"] == 2


def test_a_runs_own_settings_make_it_again(
    finished: tuple[Path, str], tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    code, _, error = train("--config", finished[0] / "config.json", "--out_dir", out)
    assert code == 0, error
    name = f"{MODEL}_fold2_val.csv"
    assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_stop_requested_during_validation_is_honoured(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def ask(*table: Any, **options: Any) -> Evaluation:
        os.kill(os.getpid(), 15)
        return evaluate(*table, **options)

    with monkeypatch.context() as patch:
        patch.setattr("core.training.fold_record.evaluate", ask)
        assert train(*flags(phantom, out, "--log_every", 100))[0] == 128 + 15
    assert len(pd.read_csv(out / "metrics.csv")) == 1
    assert train(*flags(phantom, out, "--log_every", 100))[0] == 0


def test_overwrite_does_not_touch_another_programs_folder(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    (out / "plots").mkdir(parents=True)
    for name in ("config.json", "metrics.csv", f"{MODEL}_fold1.safetensors", "plots/curves.png"):
        (out / name).write_text("{}")
    code, _, error = train(*flags(phantom, out, "--overwrite"))
    assert code == 2
    assert "not of a run" in error
    assert len([path for path in out.rglob("*") if path.is_file()]) == 4


def test_predictions_that_were_changed_are_not_scored(
    finished_copy: Path, phantom: Path, train: Train
) -> None:
    out = finished_copy
    path = out / f"{MODEL}_fold1_val.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    code, _, error = train(*flags(phantom, out, "--run_folds", 1))
    assert code == 2
    assert str(path) in error
