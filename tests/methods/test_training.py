"""Whole runs of standard_head on a small phantom, and their files."""

import gc
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.runs.folder import PLOTS
from methods import load_model
from methods.standard_head import recipe
from tests.conftest import Train
from tests.helpers.training.small_run import MODEL, flags


def test_a_run_leaves_exactly_these_files_and_a_summary(finished: tuple[Path, str]) -> None:
    out, printed = finished
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    folds = {
        f"{MODEL}_fold{fold}{end}"
        for fold in (1, 2)
        for end in (".safetensors", ".state.safetensors", "_val.csv")
    }
    assert files == folds | {f"plots/{name}.png" for name in PLOTS} | {
        *("report.html", "config.json", "env.json"),
        *("metrics.csv", "timing.csv", "folds.csv", "labels.csv", ".lock"),
    }

    for words in ("mAP", "mAUROC", str(out), str(out / "report.html"), "try next", "Effusion"):
        assert words in printed
    assert printed.count("best") >= 2


def test_metrics_has_one_row_an_epoch_with_its_mean_learning_rate(
    finished: tuple[Path, str],
) -> None:
    """A linear rise, then half a cosine to 0, one step an update."""
    out, _ = finished
    rows = pd.read_csv(out / "metrics.csv")
    assert rows["fold"].tolist() == [1, 1, 1, 2, 2, 2]
    assert rows["epoch"].tolist() == [1, 2, 3, 1, 2, 3]
    assert rows["phase"].tolist() == ["head", "all", "all"] * 2
    assert rows["train_loss"].gt(0).all()
    settings = json.loads((out / "config.json").read_text())
    images = rows["fold"].map(pd.read_csv(out / "folds.csv").groupby("fold").size())
    updates = [n // settings["batch_size"] for n in 60 - images]
    for fold in (1, 2):
        own = rows[rows["fold"] == fold]
        for phase, epochs, warmup in (("head", 1, 0), ("all", 2, settings["warmup_epochs"])):
            each = updates[int(own.index[0])]
            rise = round(warmup * each)
            falls = epochs * each - rise
            used = [(step + 1) / rise for step in range(rise)]
            used += [(1 + np.cos(np.pi * step / falls)) / 2 for step in range(falls)]
            factors = own.loc[own["phase"] == phase, "lr_factor"]
            np.testing.assert_allclose(factors, np.reshape(used, (epochs, each)).mean(axis=1))


def test_every_image_is_predicted_once_and_no_patient_is_trained_on_and_validated(
    finished: tuple[Path, str], phantom: Path
) -> None:
    predicted = [pd.read_csv(finished[0] / f"{MODEL}_fold{k}_val.csv")["ImageID"] for k in (1, 2)]
    assert sorted(pd.concat(predicted)) == sorted(pd.read_csv(phantom / "train.csv")["ImageID"])
    folds = pd.read_csv(finished[0] / "folds.csv")
    assert folds.groupby("PatientID")["fold"].nunique().max() == 1
    assert set(predicted[0]) == set(folds.loc[folds["fold"] == 1, "ImageID"])


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


def test_monitor_and_patience(phantom: Path, tmp_path: Path, train: Train) -> None:
    # a monitor that is never defined keeps the first epoch
    table = pd.read_csv(phantom / "train.csv").assign(Effusion=1)
    table.to_csv(tmp_path / "train.csv", index=False)
    arguments = flags(phantom, tmp_path / "one", "--labels", "Effusion", "--run_folds", 1)
    arguments += ["--train_csv", str(tmp_path / "train.csv"), "--patience", "2", "--epochs", "9"]
    code, _, error = train(*arguments)
    assert code == 0, error
    assert pd.read_csv(tmp_path / "one" / "metrics.csv")["best"].tolist() == [1, 0, 0]
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


def test_tensorboard_gets_the_epochs_and_images_where_they_may_be_shown(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    out = tmp_path / "out"
    assert train(*flags(phantom, out, "--run_folds", 1, "--tensorboard"))[0] == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(out / "tensorboard" / "fold1"), {"images": 0, "tensors": 0})
    events.Reload()
    metrics = pd.read_csv(out / "metrics.csv")
    values = [event.value for event in events.Scalars("mAP")]
    np.testing.assert_allclose(values, metrics["mAP"], rtol=1e-6)
    # the last epoch's curve of a class: its true positives at threshold 0 are all its positives
    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv").set_index("ImageID")
    truth = pd.read_csv(phantom / "train.csv").set_index("ImageID").loc[predicted.index]
    curves = events.Tensors("Effusion")
    assert [curve.step for curve in curves] == metrics["epoch"].tolist()
    true_positives = tensor_util.make_ndarray(curves[-1].tensor_proto)[0]
    assert true_positives[0] == (truth["Effusion"] == 1).sum()
    # eight images side by side, as large as those that are trained on
    (image,) = events.Images("training images, augmented")
    assert (image.width, image.height) == (8 * 32, 32)

    out = tmp_path / "anonymous"
    words = ["--run_folds", 1, "--tensorboard", "--anonymous", "--epochs", 1]
    assert train(*flags(phantom, out, *words))[0] == 0
    events = EventAccumulator(str(out / "tensorboard" / "fold1")).Reload()
    assert events.Tags()["images"] == []
    assert "mAP" in events.Tags()["scalars"]


def test_the_workers_of_a_fold_end_with_it(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector would end them during the report, and wait seconds for each."""
    # ends the workers of earlier tests
    gc.collect()
    finish, left = recipe.finish_run, [-1]

    def record(*given: Any) -> None:
        left[0] = len(multiprocessing.active_children())
        finish(*given)

    monkeypatch.setattr(recipe, "finish_run", record)
    words = ("--num_workers", 1, "--run_folds", 1, "--epochs", 1)
    assert train(*flags(phantom, tmp_path / "out", *words))[0] == 0
    assert left == [0]
