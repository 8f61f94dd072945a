"""A network of milliseconds, and a table with unknown labels, for tests of the loop itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from core.data.tables.label_table import LabelTable, read_table


class Scale(nn.Module):
    """uint8 to about [-2, 2], as a backbone does first."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 64 - 2


class Toy(nn.Module):
    """Eight features of an image, by a convolution; with batch norm if asked for."""

    def __init__(self, classes: int, norm: nn.Module) -> None:
        super().__init__()
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        # no ReLU: with so few channels it may let nothing through
        self.backbone = nn.Sequential(Scale(), nn.Conv2d(1, 2, 3), norm, nn.SiLU(), *pool)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def half_known(data: Path) -> LabelTable:
    """The table of a phantom with half of its labels unknown, unevenly over the images."""
    table = read_table(data / "train.csv", data / "images")
    random = np.random.default_rng(0)
    unknown = random.random(table.targets.shape) < random.random((len(table), 1))
    return replace(table, targets=np.where(unknown, np.nan, table.targets).astype(np.float32))
