"""What Fit promises beside the whole runs of tests/methods: accumulation, freezing, not finite."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from core.checkpoint import load_tensors
from core.config import LoaderConfig, LoopConfig, OptimConfig
from core.data.augment import Augmentation
from core.data.fold import FoldData
from core.data.table import LabelTable, read_table
from core.loop import Fit
from core.losses import build_loss
from core.optim import Phase
from core.runfolder import RunFolder
from core.runtime import make_fabric
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


class Scale(nn.Module):
    """uint8 to [0, 1], as a backbone does first."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 255


class Toy(nn.Module):
    """Eight features of an image, by a convolution; with batch norm if asked for."""

    def __init__(self, classes: int, norm: nn.Module) -> None:
        super().__init__()
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        self.backbone = nn.Sequential(Scale(), nn.Conv2d(1, 2, 3), norm, nn.ReLU(), *pool)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def fit_toy(
    table: LabelTable, out: Path, phase: Phase, norm: nn.Module, batch: int, accumulate: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after training on all but the last ten images."""
    out.mkdir()
    torch.manual_seed(0)
    model = Toy(len(table.class_names), norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fabric = make_fabric(amp=False)
    rows = np.arange(len(table))
    loader = LoaderConfig(img_size=32, batch_size=batch, num_workers=0)
    data = FoldData(
        fabric, 1, table, rows[:-10], rows[-10:], loader, accumulate, Augmentation([], seed=0)
    )
    Fit(
        fabric=fabric,
        model=model,
        loss=build_loss("bce", *data.training_counts()),
        phases=[phase],
        data=data,
        optim=OptimConfig(accumulate=accumulate),
        loop=LoopConfig(ema=False),
        seed=0,
        folder=RunFolder(out, "toy"),
        facts={"folds": 1},
    ).run()
    return before, model.state_dict()


@pytest.fixture
def half_known(phantom: Path) -> LabelTable:
    """The phantom's table with half of its labels unknown, unevenly over the images."""
    table = read_table(phantom / "train.csv", phantom / "images")
    random = np.random.default_rng(0)
    unknown = random.random(table.targets.shape) < random.random((len(table), 1))
    return replace(table, targets=np.where(unknown, np.nan, table.targets).astype(np.float32))


def test_accumulation_is_a_larger_batch_even_where_labels_are_unknown(
    half_known: LabelTable, tmp_path: Path
) -> None:
    phase = Phase("all", 2, {"backbone": 1e-2, "head": 1e-2})
    options = (half_known, tmp_path / "one", phase, nn.Identity())
    before, one = fit_toy(*options, batch=8, accumulate=1)
    _, four = fit_toy(options[0], tmp_path / "four", phase, nn.Identity(), batch=2, accumulate=4)
    for name, value in one.items():
        torch.testing.assert_close(four[name], value, atol=1e-5, rtol=0)
        assert (value - before[name]).abs().max() > 1e-3


def test_a_head_only_phase_leaves_the_backbone_alone(
    half_known: LabelTable, tmp_path: Path
) -> None:
    phase = Phase("head", 2, {"head": 1e-2})
    before, after = fit_toy(half_known, tmp_path / "out", phase, nn.BatchNorm2d(2), 8, 1)
    for name, value in after.items():
        # batch statistics included
        assert torch.equal(value, before[name]) == name.startswith("backbone")
