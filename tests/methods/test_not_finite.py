"""Non-finite loss or gradient: the run ends with the images' names and valid checkpoints."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from core.models.backbone import Classifier
from core.models.checkpoint import load_tensors
from tests.conftest import Train
from tests.helpers.training import small_run
from tests.helpers.training.small_run import MODEL


def flags(data: Path, out: Path, *more: str) -> list[str]:
    usual = ("--run_folds", 1, "--warmup_head_epochs", 0, "--log_every", 2)
    return small_run.flags(data, out, *usual, *more)


def test_a_nan_in_the_second_epoch_names_images_and_keeps_the_last_state(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out", 0
    forward = Classifier.forward

    def spoil_the_fifth(self: Classifier[Any], images: Tensor) -> Tensor:
        nonlocal calls
        calls += self.training
        logits = forward(self, images)
        return logits * torch.nan if self.training and calls == 5 else logits

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "forward", spoil_the_fifth)
        code, _, error = train(*flags(phantom, out))
    assert code == 2
    assert "loss was not finite at update 5 (fold 1, epoch 2; images p" in error
    assert error.count(".png") == 8
    # the state is that of the end of the first epoch, and whole
    tensors, facts = load_tensors(out / f"{MODEL}_fold1.state.safetensors")
    assert facts["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert train(*flags(phantom, out))[0] == 0
    assert pd.read_csv(out / "metrics.csv")["epoch"].tolist() == [1, 2]


def test_an_update_that_is_not_finite_changes_no_weight(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after the bad update, up to the next look, must not be poisoned by it."""
    seen: list[Tensor] = []
    forward = Classifier.forward

    def spoil_the_first(self: Classifier[Any], images: Tensor) -> Tensor:
        if self.training:
            seen.append(self.head.state_dict()["2.weight"].clone())
        logits = forward(self, images)
        return logits * torch.inf if len(seen) == 1 and self.training else logits

    monkeypatch.setattr(Classifier, "forward", spoil_the_first)
    code, _, error = train(*flags(phantom, tmp_path / "out"))
    assert code == 2
    assert "not finite at update 1" in error
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    "more",
    [
        ("--save_minutes", "1e-9", "--log_every", "1", "--backbone_lr", "1e39"),
        ("--batch_size", "24", "--head_lr", "1e3", "--backbone_lr", "1e3"),
    ],
    ids=["saved by the clock", "the last update of an epoch"],
)
def test_a_model_that_has_just_diverged_is_not_saved(
    more: tuple[str, ...], phantom: Path, tmp_path: Path, train: Train
) -> None:
    """Its last loss was finite: what is not, are the weights after it, or their predictions."""
    out = tmp_path / "out"
    code, _, error = train(*flags(phantom, out, *more, "--warmup_epochs", "0"))
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(
        r"were not finite after update 1 \(fold 1, epoch 1\) and were not saved", error
    )
    assert not list(out.glob("*.safetensors"))
