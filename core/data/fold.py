"""One fold's images, ready to be read by the fit loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from core.config import LoaderConfig
from core.data.augment import Augmentation
from core.data.dataset import Batch, RadiographDataset, build_loader, unspoiled
from core.data.prepare import Prepared
from core.data.sampler import EvaluationBatches, TrainingBatches
from core.data.table import LabelTable
from core.errors import UserError
from core.runtime import worker_count


def fold_data(
    fabric: Fabric,
    prepared: Prepared,
    loader: LoaderConfig,
    accumulate: int,
    augment: Augmentation,
) -> list[FoldData]:
    """The folds to run, for this process. Raises UserError where a batch exceeds the data."""
    return [
        FoldData(fabric, fold, prepared.table, training, validation, loader, accumulate, augment)
        for fold, training, validation in prepared.rows()
    ]


class FoldData:
    """Training and validation images of fold `fold` (from 1), for the processes of `fabric`.

    `train_rows` and `val_rows` are rows of `table`. Raises UserError where one update needs more
    images than there are.
    """

    def __init__(
        self,
        fabric: Fabric,
        fold: int,
        table: LabelTable,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        loader: LoaderConfig,
        accumulate: int,
        augment: Augmentation,
    ) -> None:
        self.fold, self.table = fold, table
        self.train_rows, self.val_rows = train_rows, val_rows
        self._fabric, self._loader, self._augment = fabric, loader, augment
        self._accumulate = accumulate
        self.images_per_update = loader.batch_size * fabric.world_size * accumulate
        self.updates_per_epoch = len(train_rows) // self.images_per_update
        if not self.updates_per_epoch:
            raise UserError(
                f"one update takes {self.images_per_update} images (--batch_size "
                f"{loader.batch_size} x {fabric.world_size} processes x --accumulate {accumulate}) "
                f"and fold {fold} trains on {len(train_rows)}: lower --batch_size"
            )

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last) without the first `updates_done` updates.

        Raises UserError for an image that cannot be read.
        """
        batches = TrainingBatches(
            images=len(self.train_rows),
            batch_size=self._loader.batch_size,
            batches_per_epoch=self.updates_per_epoch * self._accumulate,
            seed=self._augment.seed,
            first_epoch=first_epoch,
            last_epoch=last_epoch,
            skip=updates_done * self._accumulate,
            rank=self._fabric.global_rank,
            world_size=self._fabric.world_size,
        )
        dataset = RadiographDataset(
            self.table, self.train_rows, self._loader.img_size, self._augment
        )
        return unspoiled(self._build(dataset, batches, persistent=False))

    def validation(self) -> DataLoader:
        """A loader of the validation images; its workers end with it."""
        batches = EvaluationBatches(
            len(self.val_rows),
            batch_size=self._loader.batch_size,
            rank=self._fabric.global_rank,
            world_size=self._fabric.world_size,
        )
        dataset = RadiographDataset(self.table, self.val_rows, self._loader.img_size)
        return self._build(dataset, batches, persistent=True)

    def training_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(positives, known labels) of each class in the training part, int (C,) each."""
        targets = self.table.targets[self.train_rows]
        return (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)

    def _build(
        self,
        dataset: RadiographDataset,
        batches: TrainingBatches | EvaluationBatches,
        *,
        persistent: bool,
    ) -> DataLoader:
        return build_loader(
            dataset,
            batches,
            worker_count(self._loader.num_workers),
            pin_memory=self._fabric.device.type == "cuda",
            persistent=persistent,
        )
