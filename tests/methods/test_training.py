"""Whole runs of standard_head on a small phantom: what they leave behind, stop, resume, refuse."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from core.data.image import load_image
from core.metrics import Evaluation, evaluate
from core.runlog import FoldLog
from methods import load_model

Train = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
MODEL = "test_efficientnet"


def flags(data: Path, out: Path, *more: object) -> list[str]:
    """A run of a tiny network: two folds, one head-only epoch and two more."""
    return [
        *("--preset", "small", "--train_csv", str(data / "train.csv")),
        *("--train_dir", str(data / "images"), "--out_dir", str(out)),
        *("--model", MODEL, "--no-pretrained", "--img_size", "32", "--batch_size", "8"),
        *("--folds", "2", "--epochs", "2", "--num_workers", "0", "--log_every", "1"),
        *map(str, more),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run that the same run always gives again, byte for byte."""
    names = ["metrics.csv", "folds.csv", "config.json"]
    names += [f"{MODEL}_fold{fold}{end}" for fold in (1, 2) for end in (".safetensors", "_val.csv")]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture(scope="module")
def finished(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run to the end in a process of its own, as a user starts it, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "out"
    command = [sys.executable, "methods/standard_head/train.py", *flags(phantom, out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_run_leaves_exactly_these_files(finished: tuple[Path, str]) -> None:
    out, _ = finished
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    folds = {
        f"{MODEL}_fold{fold}{end}"
        for fold in (1, 2)
        for end in (".safetensors", ".state.safetensors", "_val.csv")
    }
    plots = {f"plots/{name}.png" for name in ("classes", "curves", "precision_recall")}
    assert files == folds | plots | {
        *("plots/reliability.png", "report.html", "config.json", "env.json"),
        *("metrics.csv", "timing.csv", "folds.csv", ".lock"),
    }


def test_the_summary_says_where_everything_is(finished: tuple[Path, str]) -> None:
    out, printed = finished
    for words in ("mAP", "mAUROC", str(out), str(out / "report.html"), "try next", "Effusion"):
        assert words in printed
    assert printed.count("best") >= 2


def test_metrics_has_one_row_an_epoch(finished: tuple[Path, str]) -> None:
    rows = pd.read_csv(finished[0] / "metrics.csv")
    assert rows["fold"].tolist() == [1, 1, 1, 2, 2, 2]
    assert rows["epoch"].tolist() == [1, 2, 3, 1, 2, 3]
    assert rows["phase"].tolist() == ["head", "all", "all"] * 2
    assert rows["train_loss"].gt(0).all()


def test_predictions_cover_every_image_once(finished: tuple[Path, str], phantom: Path) -> None:
    predictions = [pd.read_csv(finished[0] / f"{MODEL}_fold{fold}_val.csv") for fold in (1, 2)]
    names = pd.concat(predictions)["ImageID"]
    assert sorted(names) == sorted(pd.read_csv(phantom / "train.csv")["ImageID"])


def test_no_patient_is_trained_on_and_validated(finished: tuple[Path, str]) -> None:
    folds = pd.read_csv(finished[0] / "folds.csv")
    assert folds.groupby("PatientID")["fold"].nunique().max() == 1
    predicted = set(pd.read_csv(finished[0] / f"{MODEL}_fold1_val.csv")["ImageID"])
    assert predicted == set(folds.loc[folds["fold"] == 1, "ImageID"])


def test_the_checkpoint_alone_gives_its_predictions_again(
    finished: tuple[Path, str], phantom: Path
) -> None:
    model, info = load_model(finished[0] / f"{MODEL}_fold1.safetensors")
    predictions = pd.read_csv(finished[0] / f"{MODEL}_fold1_val.csv", index_col="ImageID")
    assert info.method == "standard_head"
    assert list(info.class_names) == list(predictions.columns)
    paths = [phantom / "images" / name for name in predictions.index]
    pixels = np.stack([load_image(path, info.image_size) for path in paths])
    images = torch.from_numpy(pixels)[:, None]
    with torch.no_grad():
        both = (torch.sigmoid(model(images)) + torch.sigmoid(model(images.flip(-1)))) / 2
    np.testing.assert_allclose(both.numpy(), predictions.to_numpy(), atol=2e-5)


def test_the_checkpoint_describes_itself(finished: tuple[Path, str], phantom: Path) -> None:
    _, info = load_model(finished[0] / f"{MODEL}_fold2.safetensors")
    folds = pd.read_csv(finished[0] / "folds.csv").set_index("ImageID")["fold"]
    labels = pd.read_csv(phantom / "train.csv").set_index("ImageID")
    training = labels[folds.reindex(labels.index) != 2]
    assert info.facts["fold"] == 2
    assert info.facts["training_positives"]["Effusion"] == training["Effusion"].sum()
    assert info.facts["training_known"]["Effusion"] == len(training)
    rows = pd.read_csv(finished[0] / "metrics.csv").query("fold == 2")
    best = rows[rows["epoch"] == info.facts["epoch"]].iloc[0]
    assert best["mAP"] == rows["mAP"].max() == info.facts["metrics"]["mAP"]


def test_the_same_command_again_changes_nothing(
    finished: tuple[Path, str], phantom: Path, train: Train
) -> None:
    out, _ = finished
    before = contents(out)
    code, printed, _ = train(*flags(phantom, out))
    assert code == 0
    assert printed.count("finished before") == 2
    assert "mAUROC" in printed
    assert contents(out) == before


def test_another_configuration_is_refused_by_name(
    finished: tuple[Path, str], phantom: Path, train: Train
) -> None:
    out, _ = finished
    before = contents(out)
    code, _, error = train(*flags(phantom, out, "--backbone_lr", "0.5"))
    assert code == 2
    assert "backbone_lr (0.0005 there, 0.5 now)" in error
    assert "--overwrite" in error
    assert contents(out) == before


def test_other_labels_in_the_same_file_are_refused(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)
    assert train(*flags(data, out, "--run_folds", 1))[0] == 0
    table = pd.read_csv(data / "train.csv")
    table["Mass"] = 1 - table["Mass"]
    table.to_csv(data / "train.csv", index=False)
    code, _, error = train(*flags(data, out, "--run_folds", 1))
    assert code == 2
    assert "labels" in error


def test_overwrite_starts_anew_and_spares_other_files(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    assert train(*flags(phantom, out, "--run_folds", 1))[0] == 0
    (out / "notes.txt").write_text("mine")
    again = flags(phantom, out, "--run_folds", 1, "--seed", 5, "--overwrite")
    code, printed, _ = train(*again)
    assert code == 0
    assert "finished before" not in printed
    assert json.loads((out / "config.json").read_text())["seed"] == 5
    assert (out / "notes.txt").read_text() == "mine"
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
    code, _, _ = train(*flags(data, out, *options))
    assert code == 0
    ours, theirs = contents(out), contents(finished[0])
    for name in set(ours) - {"config.json"}:
        # checkpoints name the data's folder among their settings
        if not name.endswith(".safetensors"):
            assert ours[name] == theirs[name], name


def test_a_stopped_run_goes_on_bit_for_bit(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    """SIGTERM in the middle of an epoch: the state is saved, and the end is the same."""

    out = tmp_path / "out"
    updates = 0
    advance = FoldLog.advance

    def stop_at_the_fifth(self: FoldLog, images: int) -> None:
        nonlocal updates
        updates += 1
        if updates == 5:
            os.kill(os.getpid(), 15)
        advance(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FoldLog, "advance", stop_at_the_fifth)
        code, printed, _ = train(*flags(phantom, out))
    assert code == 128 + 15
    assert "the same command goes on from here" in printed
    assert not (out / "report.html").exists()
    assert train(*flags(phantom, out))[0] == 0
    ours, theirs = contents(out), contents(finished[0])
    for name in ("metrics.csv", f"{MODEL}_fold1_val.csv", f"{MODEL}_fold2_val.csv"):
        assert ours[name] == theirs[name], name
    resumed, straight = (
        load_model(folder / f"{MODEL}_fold1.safetensors")[0].state_dict()
        for folder in (out, finished[0])
    )
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_runs_own_settings_make_it_again(
    finished: tuple[Path, str], tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    code, _, error = train("--config", finished[0] / "config.json", "--out_dir", out)
    assert code == 0, error
    name = f"{MODEL}_fold2_val.csv"
    assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_stop_that_is_asked_for_while_validating_is_heeded(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def ask(*table: Any, **options: Any) -> Evaluation:
        os.kill(os.getpid(), 15)
        return evaluate(*table, **options)

    with monkeypatch.context() as patch:
        patch.setattr("core.best.evaluate", ask)
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
    assert "no run's" in error
    assert len([path for path in out.rglob("*") if path.is_file()]) == 4


def test_predictions_that_were_changed_are_not_scored(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    assert train(*flags(phantom, out, "--run_folds", 1))[0] == 0
    path = out / f"{MODEL}_fold1_val.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    code, _, error = train(*flags(phantom, out, "--run_folds", 1))
    assert code == 2
    assert str(path) in error


def test_a_monitor_that_is_never_defined_keeps_the_first_epoch(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    table = pd.read_csv(phantom / "train.csv")
    table["Effusion"] = 1
    table.to_csv(tmp_path / "train.csv", index=False)
    out = tmp_path / "out"
    arguments = flags(phantom, out, "--labels", "Effusion", "--run_folds", 1, "--patience", 2)
    code, _, error = train(*arguments, "--train_csv", tmp_path / "train.csv", "--epochs", 9)
    assert code == 0, error
    assert pd.read_csv(out / "metrics.csv")["best"].tolist() == [1, 0, 0]


CHANGES = [
    *("--seed 1", "--batch_size 4", "--accumulate 2", "--img_size 40", "--loss bce"),
    *("--loss focal", "--logit_adjust 0", "--warmup_head_epochs 0", "--warmup_head_lr 0.1"),
    *("--warmup_epochs 0", "--backbone_lr 0.01", "--head_lr 0.01", "--weight_decay 20"),
    *("--clip_norm 0.001", "--drop_rate 0", "--no-ema"),
    *("--ema_decay 0.1", "--no-tta", "--labels Effusion,Mass", "--patient_column none"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_flag_changes_the_result(
    change: str, finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    code, _, error = train(*flags(phantom, out, "--run_folds", 1, *change.split()))
    assert code == 0, error
    name = f"{MODEL}_fold1_val.csv"
    assert (out / name).read_bytes() != (finished[0] / name).read_bytes()


def test_pos_weight_changes_bce(phantom: Path, tmp_path: Path, train: Train) -> None:
    for name, more in (("plain", ()), ("weighted", ("--pos_weight",))):
        options = ("--run_folds", 1, "--loss", "bce", *more)
        assert train(*flags(phantom, tmp_path / name, *options))[0] == 0
    losses = [
        pd.read_csv(tmp_path / name / "metrics.csv")["train_loss"] for name in ("plain", "weighted")
    ]
    assert (losses[1] > losses[0]).all()


def test_drop_path_and_grad_checkpointing(phantom: Path, tmp_path: Path, train: Train) -> None:
    """One changes the result, the other only where activations are kept (without batch norm)."""
    predictions = []
    changes = {"plain": "", "dropped": "--drop_path_rate 0.5", "saved": "--grad_checkpointing"}
    for name, change in changes.items():
        options = ("--run_folds", 1, "--model", "test_convnext", *change.split())
        assert train(*flags(phantom, tmp_path / name, *options))[0] == 0
        path = tmp_path / name / "test_convnext_fold1_val.csv"
        predictions.append(pd.read_csv(path, index_col=0).to_numpy())
    plain, dropped, checkpointed = predictions
    assert np.abs(plain - dropped).max() > 1e-3
    np.testing.assert_allclose(plain, checkpointed, atol=1e-5)


def test_monitor_and_patience(phantom: Path, tmp_path: Path, train: Train) -> None:
    out = tmp_path / "out"
    # with a rate of almost 0 nothing gets better for long
    options = ("--run_folds", 1, "--epochs", 30, "--warmup_head_epochs", 0, "--patience", 2)
    rates = ("--backbone_lr", 1e-12, "--head_lr", 1e-12, "--monitor", "mAUROC")
    assert train(*flags(phantom, out, *options, *rates))[0] == 0
    rows = pd.read_csv(out / "metrics.csv")
    assert len(rows) == rows["mAUROC"].argmax() + 1 + 2


def test_an_official_split_is_one_fold(phantom: Path, tmp_path: Path, train: Train) -> None:
    table = pd.read_csv(phantom / "train.csv")
    last = table["PatientID"].isin(table["PatientID"].unique()[-5:])
    table[~last].to_csv(tmp_path / "train.csv", index=False)
    table[last].to_csv(tmp_path / "val.csv", index=False)
    arguments = flags(phantom, tmp_path / "out", "--val_csv", tmp_path / "val.csv")
    code, printed, error = train(*arguments, "--train_csv", tmp_path / "train.csv")
    assert code == 0, error
    assert "official split" in printed
    predicted = pd.read_csv(tmp_path / "out" / f"{MODEL}_fold1_val.csv")["ImageID"]
    assert set(predicted) == set(table.loc[last, "ImageID"])


def test_tensorboard_gets_the_epochs(phantom: Path, tmp_path: Path, train: Train) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    out = tmp_path / "out"
    assert train(*flags(phantom, out, "--run_folds", 1, "--tensorboard"))[0] == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard" / "fold1"))
    events.Reload()
    values = [event.value for event in events.Scalars("mAP")]
    np.testing.assert_allclose(values, pd.read_csv(out / "metrics.csv")["mAP"], rtol=1e-6)
