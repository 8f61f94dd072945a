"""One fold's images, ready to be read by the fit loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from core.config import LoaderConfig
from core.data.augment import Augmentation
from core.data.dataset import Batch, RadiographDataset, build_loader, unspoiled
from core.data.evaluation import evaluation_loader
from core.data.prepare import Prepared
from core.data.sampler import TrainingBatches, build_sampler, drawn_positives
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
    """The folds to run, for this process. Raises UserError where a fold cannot be trained on."""
    return [
        FoldData(fabric, fold, prepared.table, training, validation, loader, accumulate, augment)
        for fold, training, validation in prepared.rows()
    ]


class FoldData:
    """Training and validation images of fold `fold` (from 1), for the processes of `fabric`.

    `train_rows` and `val_rows` are rows of `table`; `sampler` says which of the former an epoch
    draws. Raises UserError where one update needs more images than an epoch draws, and for a
    sampler that has nothing to go by.
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
        targets = table.targets[train_rows]
        try:
            self.sampler = build_sampler(loader.sampler, targets, augment.seed, loader.epoch_size)
        except UserError as error:
            raise UserError(f"fold {fold}: {error}") from error
        self.images_per_update = loader.batch_size * fabric.world_size * accumulate
        self.updates_per_epoch = self.sampler.epoch_size // self.images_per_update
        if not self.updates_per_epoch:
            mend = "lower --batch_size"
            if loader.epoch_size is not None:
                mend = f"raise --epoch_size or {mend}"
            raise UserError(
                f"one update takes {self.images_per_update} images (--batch_size "
                f"{loader.batch_size} x {fabric.world_size} processes x --accumulate {accumulate}) "
                f"and an epoch of fold {fold} draws {self.sampler.epoch_size}: {mend}"
            )

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last) without the first `updates_done` updates.

        Raises UserError for an image that cannot be read.
        """
        batches = TrainingBatches(
            plan=self.sampler,
            batch_size=self._loader.batch_size,
            batches_per_epoch=self.updates_per_epoch * self._accumulate,
            first_epoch=first_epoch,
            last_epoch=last_epoch,
            skip=updates_done * self._accumulate,
            rank=self._fabric.global_rank,
            world_size=self._fabric.world_size,
        )
        dataset = RadiographDataset(
            self.table, self.train_rows, self._loader.img_size, self._augment
        )
        loader = build_loader(
            dataset,
            batches,
            worker_count(self._loader.num_workers),
            pin_memory=self._fabric.device.type == "cuda",
            persistent=False,
        )
        return unspoiled(loader)

    def validation(self) -> DataLoader:
        """A loader of the validation images; its workers end with it."""
        return evaluation_loader(self._fabric, self.table, self.val_rows, self._loader)

    def training_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(positives, known labels) of each class in the training part, int (C,) each."""
        return _counts(self.table.targets[self.train_rows])

    def drawn_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The same two counts over as many draws as there are images, or an epoch's if more.

        With the uniform sampler they are those of the images themselves.
        """
        draws = self.sampler.draws(0, max(len(self.train_rows), self.sampler.epoch_size))
        return _counts(self.table.targets[self.train_rows[draws]])

    def epoch_plan(self, epoch: int) -> np.ndarray:
        """Positions among `train_rows` of all that `epoch` (from 0) trains on, in order; int64."""
        return self.sampler(epoch)[: self.updates_per_epoch * self.images_per_update]


def _counts(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)


def describe_sampling(data: FoldData) -> str:
    """Lines that say what the sampler draws of each class in the first epoch; "" for uniform.

    A draw counts for every class of which its image is a positive.
    """
    if data.sampler.name == "uniform":
        return ""
    known = data.table.targets[data.train_rows]
    without = ~(known == 1).any(axis=1, keepdims=True)
    targets = np.concatenate([known, without], axis=1)  # (N, C + 1)
    plan = data.epoch_plan(0)
    names = [*data.table.class_names, "(no positive)"]
    positives, drawn = (targets == 1).sum(axis=0), drawn_positives(plan, targets)
    width = max(map(len, names))
    lines = [
        f"Sampler {data.sampler.name}, fold {data.fold}: an epoch makes {len(plan):,} draws from "
        f"{len(targets):,} images.",
        f"{'':<{width}}  {'positives':>9}  {'drawn an epoch':>14}",
    ]
    lines += [
        f"{name:<{width}}  {images:>9,}  {draws:>14,}"
        for name, images, draws in zip(names, positives, drawn, strict=True)
        if images
    ]
    if missing := [names[c] for c in np.flatnonzero(positives[:-1] == 0)]:
        lines.append(f"Left out, as no image here is positive: {', '.join(missing)}.")
    return "\n".join(lines)
