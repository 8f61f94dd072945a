"""--retrain_epochs in whole runs: the head is trained again on another sampler's draws."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from core.models.checkpoint import load_tensors
from core.training.resume import Progress
from tests.conftest import Train
from tests.helpers.training.small_run import METHODS, MODEL, contents, flags
from tests.helpers.training.stopped_training import stopped_at

FOLD = ("--run_folds", 1, "--retrain_epochs", 3, "--head_views", 1, "--sampler", "uniform")
TrainMethod = Callable[[str], Train]


@pytest.mark.parametrize("method", METHODS)
def test_the_head_is_trained_again_and_resumes_to_the_same_bits(
    method: str, phantom: Path, tmp_path: Path, train_method: TrainMethod
) -> None:
    train = train_method(method)
    whole, stopped = (flags(phantom, tmp_path / name, *FOLD) for name in ("whole", "stopped"))
    code, printed, error = train(*whole)
    assert code == 0, error
    assert "Sampler class_aware, fold 1: an epoch makes" in printed
    # advice: once, before the training
    assert printed.count("shift probabilities") + printed.count("shifts probabilities") == 1
    assert printed.index("Advice: --loss") < printed.index("epoch  1/")
    metrics = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    first, again = (metrics[metrics["phase"].eq("retrain") == part] for part in (False, True))
    assert len(again) == 3
    assert again["backbone_lr"].eq(0).all()
    scores = [part["mAP"].max() for part in (first, again)]
    kept = "re-trained" if scores[1] > scores[0] else "first"
    assert f"mAP {scores[0]:.4f}, re-trained {scores[1]:.4f}: the {kept} weights" in printed
    if method == METHODS[0]:
        # in the epoch that computes the features, and in one that reads them
        for updates in (13, 3):
            stopped_at(train, updates, *stopped)
        code, printed, error = train(*stopped)
        assert code == 0, error
        assert "Advice" not in printed
        ours, theirs = (contents(tmp_path / name) for name in ("stopped", "whole"))
        for files in (ours, theirs):
            del files["config.json"], files[f"{MODEL}_fold1.safetensors"]
        assert ours == theirs


def test_the_backbone_stays_at_the_average_before(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    """With a rate at which the re-trained weights cannot be the best, and then only they."""
    tensors = {}
    for name, words in {
        "before": ("--retrain_epochs", 0),
        "after": ("--retrain_epochs", 1, "--retrain_lr", 1e-8, "--monitor", "mAUROC"),
    }.items():
        out = tmp_path / name
        code, _, error = train(*flags(phantom, out, *FOLD, "--no-ema", *words))
        assert code == 0, error
        tensors[name] = load_tensors(out / f"{MODEL}_fold1.state.safetensors")[0]
        tensors[name] |= load_tensors(out / f"{MODEL}_fold1.safetensors")[0]
    assert tensors["before"].keys() == tensors["after"].keys()
    backbone = [name for name in tensors["before"] if name.startswith("backbone.")]
    assert backbone
    for name in backbone:
        assert torch.equal(tensors["before"][name], tensors["after"][name])


def test_patience_ends_the_stage_and_not_the_fold() -> None:
    progress = Progress()
    scores = [0.1, 0.3, 0.2, 0.2, 0.25, 0.26, 0.4, 0.3, 0.3]
    ends = []
    for score in scores:
        progress.end_epoch(score, [6, 12], patience=2)
        ends.append((progress.epoch, progress.best_epoch, progress.finished))
        if progress.finished:
            break
    # the fourth epoch ends the first stage; in the second the best is the third of its epochs
    assert ends == [
        *((1, 1, False), (2, 2, False), (3, 2, False), (6, 2, False)),
        *((7, 2, False), (8, 2, True)),
    ]
