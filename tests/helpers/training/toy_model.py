"""Tiny network and table with unknown labels for tests of the training loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor, nn

from core.config.training import LoopConfig, SplitConfig, TwoPhaseConfig
from core.data.loading.fold_data import FoldData
from core.data.splits.prepare import PreparedData
from core.data.tables import LabelTable, read_table
from core.runs.folder import RunFolder
from core.runtime.fabric import make_fabric
from core.training.run import Run
from methods.standard_head.config import Config


class Scale(nn.Module):
    """uint8 to about [-2, 2], as a backbone does first."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 64 - 2


class Toy(nn.Module):
    """Convolution to eight features per image, with optional batch norm."""

    def __init__(self, classes: int, norm: nn.Module) -> None:
        super().__init__()
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        # no ReLU: with so few channels it may let nothing through
        self.backbone = nn.Sequential(Scale(), nn.Conv2d(1, 2, 3), norm, nn.SiLU(), *pool)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def half_known(data: Path) -> LabelTable:
    """Table of a phantom with half of its labels unknown, unevenly over the images."""
    table = read_table(data / "train.csv", data / "images")
    random = np.random.default_rng(0)
    unknown = random.random(table.targets.shape) < random.random((len(table), 1))
    return replace(table, targets=np.where(unknown, np.nan, table.targets).astype(np.float32))


def toy_run(
    data: FoldData, folder: Path, *, accumulate: int = 1, fabric: Fabric | None = None, **loop: Any
) -> Run:
    """Run of seed 0 with the single fold `data`."""
    config = Config(
        split=SplitConfig(seed=0),
        optim=TwoPhaseConfig(accumulate=accumulate),
        loop=LoopConfig(**{"ema": False, "log_every": 1} | loop),
    )
    return Run(
        method="standard_head",
        config=config,
        fabric=fabric or make_fabric(amp="off"),
        prepared=PreparedData(data.table, np.zeros(len(data.table), dtype=np.int64), (1,)),
        data=[data],
        folder=RunFolder(folder, "toy"),
    )
