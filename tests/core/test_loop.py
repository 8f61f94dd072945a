"""What Fit promises beside the whole runs of tests/methods: accumulation and freezing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.config import LoaderConfig, LoopConfig, OptimConfig
from core.data.augment import Augmentation
from core.data.fold import FoldData
from core.data.table import LabelTable, read_table
from core.loop import Fit
from core.losses import build_loss
from core.optim import Phase
from core.runfolder import RunFolder
from core.runtime import make_fabric

Train = Callable[..., tuple[int, str, str]]


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
