"""A loader that covers given images of a table once."""

import numpy as np
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from core.config.training import LoaderConfig
from core.data.loading.dataset import RadiographDataset, build_loader
from core.data.loading.samplers import EvaluationBatches
from core.data.tables.label_table import LabelTable
from core.runtime.fabric import worker_count


def evaluation_loader(
    fabric: Fabric, table: LabelTable, rows: np.ndarray, loader: LoaderConfig
) -> DataLoader:
    """This process's share of the images of `rows`; its workers end with the loader."""
    batches = EvaluationBatches(
        len(rows),
        batch_size=loader.batch_size,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    return build_loader(
        RadiographDataset(table, rows, loader.img_size),
        batches,
        worker_count(loader.num_workers),
        pin_memory=fabric.device.type == "cuda",
        persistent=True,
    )
