"""What fit() promises beside the whole runs of tests/methods: numbers that are not finite."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from core.checkpoint import load_tensors
from methods.standard_head.model import StandardHeadModel

Train = Callable[..., tuple[int, str, str]]
MODEL = "test_efficientnet"


def flags(data: Path, out: Path) -> list[str]:
    return [
        *("--preset", "small", "--train_csv", str(data / "train.csv")),
        *("--train_dir", str(data / "images"), "--out_dir", str(out)),
        *("--model", MODEL, "--no-pretrained", "--img_size", "32", "--batch_size", "8"),
        *("--folds", "2", "--run_folds", "1", "--epochs", "2", "--num_workers", "0"),
        *("--warmup_head_epochs", "0", "--log_every", "2"),
    ]


def test_a_nan_in_the_second_epoch_names_images_and_keeps_the_last_state(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out", 0
    forward = StandardHeadModel.forward

    def spoil_the_fifth(self: StandardHeadModel, images: Tensor) -> Tensor:
        nonlocal calls
        calls += self.training
        logits = forward(self, images)
        return logits * torch.nan if self.training and calls == 5 else logits

    with monkeypatch.context() as patch:
        patch.setattr(StandardHeadModel, "forward", spoil_the_fifth)
        code, _, error = train(*flags(phantom, out))
    assert code == 2
    assert "loss was not finite at update 5 (fold 1, epoch 2; images p" in error
    assert error.count(".png") == 8
    tensors, facts = load_tensors(out / f"{MODEL}_fold1.state.safetensors")
    assert facts["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    code, _, _ = train(*flags(phantom, out))
    assert code == 0
    assert pd.read_csv(out / "metrics.csv")["epoch"].tolist() == [1, 2]


def test_an_update_that_is_not_finite_changes_no_weight(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after the bad update, up to the next look, must not be poisoned by it."""
    seen: list[Tensor] = []
    forward = StandardHeadModel.forward

    def spoil_the_first(self: StandardHeadModel, images: Tensor) -> Tensor:
        if self.training:
            seen.append(self.head.state_dict()["2.weight"].clone())
        logits = forward(self, images)
        return logits * torch.inf if len(seen) == 1 and self.training else logits

    monkeypatch.setattr(StandardHeadModel, "forward", spoil_the_first)
    code, _, error = train(*flags(phantom, tmp_path / "out"))
    assert code == 2
    assert "not finite at update 1" in error
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
