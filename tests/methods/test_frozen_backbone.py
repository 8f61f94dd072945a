"""--freeze_backbone and --layer_decay in whole runs of every method."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from core.models.checkpoint import load_tensors
from methods import load_model
from tests.conftest import Train
from tests.helpers.training.small_run import METHODS, MODEL, contents, flags, settings
from tests.helpers.training.stopped_training import stopped_at

FOLD = ("--run_folds", 1)
TrainMethod = Callable[[str], Train]


@pytest.mark.parametrize("method", METHODS)
def test_the_head_alone_is_trained_and_resumes_to_the_same_bits(
    method: str,
    phantom: Path,
    tmp_path: Path,
    finished: tuple[Path, str],
    train_method: TrainMethod,
) -> None:
    """From the weights of another run; stopped once in the epoch that is computed and once in one
    from the cache."""
    start = finished[0] / f"{MODEL}_fold1.safetensors"
    words = ("--freeze_backbone", "--head_views", 1, "--init_from", start, *FOLD)
    whole, stopped = (flags(phantom, tmp_path / name, *words) for name in ("whole", "stopped"))
    train = train_method(method)
    code, printed, error = train(*whole)
    assert code == 0, error
    assert "random features" not in printed
    weights, begun = (load_tensors(path)[0] for path in (find(tmp_path / "whole"), start))
    for name, value in begun.items():
        if name.startswith("backbone."):
            assert torch.equal(weights[name], value), name
    metrics = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    # two epochs, and one of the head phase where the method has one
    one_more = "warmup_head_epochs" in settings(method=method)
    assert metrics["phase"].tolist() == ["head"] * (2 + one_more)
    assert metrics["backbone_lr"].eq(0).all()
    assert metrics["train_loss"].nunique() == len(metrics)
    if method == "label_coupling":
        assert weights["head.coupling.A"].count_nonzero() > 0
    updates = (60 - len(pd.read_csv(tmp_path / "whole" / f"{MODEL}_fold1_val.csv"))) // 8
    stopped_at(train, 2, *stopped)
    stopped_at(train, updates, *stopped)
    code, printed, error = train(*stopped)
    assert code == 0, error
    ours, theirs = (contents(tmp_path / name) for name in ("stopped", "whole"))
    for files in (ours, theirs):
        # the names of their folders
        del files["config.json"], files[f"{MODEL}_fold1.safetensors"]
    assert ours == theirs
    again = load_tensors(find(tmp_path / "stopped"))[0]
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def find(out: Path) -> Path:
    return out / f"{MODEL}_fold1.safetensors"


def test_all_epochs_are_those_of_the_head_phase(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    """With a head of one layer, and a warning, as these features are random."""
    ways = {
        "frozen": ("--freeze_backbone", "--epochs", 2, "--warmup_head_epochs", 1),
        "no_epochs": ("--epochs", 0, "--warmup_head_epochs", 3),
    }
    for name, words in ways.items():
        code, printed, error = train(
            *flags(phantom, tmp_path / name, *words, "--head", "linear", *FOLD)
        )
        assert code == 0, error
        assert "Warning: the backbone is frozen at random weights" in printed
        assert "fold 1/2  3 head epochs" in printed
    for name in ("metrics.csv", f"{MODEL}_fold1_val.csv"):
        frozen, other = ((tmp_path / way / name).read_bytes() for way in ways)
        assert frozen == other
    model, info = load_model(find(tmp_path / "frozen"))
    assert info.facts["model"]["head"] == "linear"
    assert {name for name, _ in model.get_submodule("head").named_children()} == {
        "norm",
        "dropout",
        "linear",
    }


def test_a_dry_run_has_the_phase_once(phantom: Path, tmp_path: Path, train: Train) -> None:
    code, printed, error = train(
        *flags(phantom, tmp_path / "out", "--freeze_backbone", "--dry_run")
    )
    assert code == 0, error
    assert pd.read_csv(tmp_path / "out_dry_run" / "metrics.csv")["phase"].tolist() == ["head"]
    assert printed.count("an epoch of phase") == 1


def test_a_run_with_layer_decay_resumes_to_the_same_bits(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    words = ("--layer_decay", 0.5, *FOLD)
    whole, stopped = (flags(phantom, tmp_path / name, *words) for name in ("whole", "stopped"))
    assert train(*whole)[0] == 0
    stopped_at(train, 6, *stopped)
    assert train(*stopped)[0] == 0
    for name in ("metrics.csv", f"{MODEL}_fold1_val.csv"):
        ours, theirs = ((tmp_path / run / name).read_bytes() for run in ("stopped", "whole"))
        assert ours == theirs
