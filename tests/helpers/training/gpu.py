"""Marks and helpers of tests that need a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from core.config.training import LoaderConfig
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData
from core.data.tables.label_table import LabelTable

DEVICE = "cuda"
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use"),
]


def fabric(precision: str = "32-true", **options: object) -> Fabric:
    """Fabric on the GPU."""
    given: dict = options or {"precision": precision}
    return Fabric(accelerator=DEVICE, devices=1, **given)


def fold(fabric: Fabric, table: LabelTable, workers: int = 0) -> FoldData:
    """Fold of all but the last ten images in batches of eight, without augmentation."""
    rows = np.arange(len(table))
    loader = LoaderConfig(img_size=32, batch_size=8, num_workers=workers)
    augment = Augmentation([], seed=0)
    return FoldData(fabric, 1, table, rows[:-10], rows[-10:], loader, 1, augment)


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Raise RuntimeError where the host would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def state_file(folder: Path) -> Path:
    """Resume state of the only fold in a run folder."""
    (found,) = folder.glob("*.state.safetensors")
    return found
