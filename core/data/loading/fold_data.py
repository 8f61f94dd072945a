"""Training and validation loaders of one fold, with its sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.config.training import LoaderConfig
from core.data.loading.augmentation import Augmentation
from core.data.loading.batches import training_batches
from core.data.loading.dataset import (
    Batch,
    DecodedImage,
    RadiographDataset,
    decoding_loader,
    describe_blank_images,
    evaluation_loader,
)
from core.data.loading.loader import DecodingLoader
from core.data.loading.samplers import Sampler, build_mixture, build_sampler
from core.data.splits.folds import count_positives
from core.data.splits.prepare import PreparedData
from core.data.splits.source_weights import source_shares
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first
from core.runtime.fabric import worker_count
from core.runtime.log import logger


def fold_data(
    fabric: Fabric,
    prepared: PreparedData,
    loader: LoaderConfig,
    accumulate: int,
    augment: Augmentation,
) -> list[FoldData]:
    """FoldData of each fold to run. Raises UserError like `FoldData` and `check_packs`."""
    for sentence in check_packs(prepared.table, loader.img_size):
        logger.info(sentence)
    return [
        FoldData(fabric, fold, prepared.table, training, validation, loader, accumulate, augment)
        for fold, training, validation in prepared.rows()
    ]


class FoldData:
    """Training and validation images of fold `fold` (from 1), for the ranks of `fabric`.

    `train_rows` and `val_rows` are rows of `table`. `sampler` draws from `train_rows` without those
    of sources with weight 0. Raises UserError if an update needs more images than an epoch draws,
    and for a sampler or weights that do not fit the table.
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
        self.shares = source_shares(table, loader.source_weights)
        if self.shares is not None:
            assert table.sources is not None
            train_rows = train_rows[self.shares[table.sources[train_rows]] > 0]
        self.train_rows, self.val_rows = train_rows, val_rows
        self._fabric, self._loader, self._augment = fabric, loader, augment
        self._accumulate = accumulate
        # by row: image is blank, and is already reported
        self._constant, self._reported = np.zeros((2, len(table)), dtype=bool)
        self.digests = np.zeros(len(table), dtype=np.int64)
        """Image digests by row of the table; 0 if not read yet."""
        self.sampler = self._build_sampler()
        self.images_per_update = loader.batch_size * fabric.world_size * accumulate
        self.updates_per_epoch = self.sampler.epoch_size // self.images_per_update
        if not self.updates_per_epoch:
            other = "" if loader.epoch_size is None else "raise --epoch_size or "
            raise UserError(
                f"one update takes {self.images_per_update} images (--batch_size "
                f"{loader.batch_size} x {fabric.world_size} processes x --accumulate {accumulate}) "
                f"and an epoch of fold {fold} draws {self.sampler.epoch_size}: {other}lower "
                "--batch_size"
            )

    def _build_sampler(self) -> Sampler:
        loader, table = self._loader, self.table
        rows, seed = self.train_rows, self._augment.seed
        # a soft label from .5 on makes an image one of the class's
        of_all = loader.sampler, table.binary_targets[rows], seed, loader.epoch_size
        limits: dict[str, Any] = {"mix": loader.sampler_mix, "cap": loader.sampler_cap}
        try:
            if self.shares is None or table.sources is None:
                return build_sampler(*of_all, **limits)
            of_sources = table.sources[rows], self.shares, table.source_names
            return build_mixture(*of_all, *of_sources, **limits)
        except UserError as error:
            raise UserError(f"fold {self.fold}: {error}") from error

    def with_sampler(self, name: str) -> FoldData:
        """This fold with another sampler, without its limits, and epochs of equal size."""
        size = self.sampler.epoch_size
        changes: dict[str, Any] = {"sampler": name, "epoch_size": size}
        other = copy(self)
        other._loader = replace(self._loader, **changes, sampler_mix=0.0, sampler_cap=None)
        other.sampler = other._build_sampler()
        return other

    @property
    def sampling(self) -> str:
        """Name and limits of the sampler."""
        mix, cap = self._loader.sampler_mix, self._loader.sampler_cap
        text = self.sampler.name + (f", {mix:.0%} uniform draws" if mix else "")
        return text + (f", at most {cap:g} draws of an image for a class" if cap else "")

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last), skipping the first `updates_done` updates.

        Raises UserError for an unreadable image.
        """
        batches = training_batches(
            self.sampler,
            self._loader.batch_size,
            self.updates_per_epoch * self._accumulate,
            range(first_epoch, last_epoch),
            updates_done * self._accumulate,
            self._fabric.global_rank,
            self._fabric.world_size,
        )
        loader = decoding_loader(
            self._training_images(),
            batches,
            worker_count(self._loader.num_workers),
            pin_memory=self._fabric.device.type == "cuda",
        )
        loader.constant, loader.digests = self._constant, self.digests
        return iter(loader)

    def _training_images(self) -> RadiographDataset:
        # rebuilt on each call, because it is large
        size = self._loader.img_size
        return RadiographDataset(self.table, self.train_rows, size, self._augment)

    def examples(self, count: int) -> np.ndarray:
        """First training images, augmented: uint8 (`count` or fewer, H, W)."""
        dataset, plan = self._training_images(), self.epoch_plan(0)[:count].tolist()
        read = [dataset[0, place, position] for place, position in enumerate(plan)]
        return np.stack([one.image for one in read if isinstance(one, DecodedImage)])

    def validation(self) -> DecodingLoader:
        """Loader of the validation images, a context that ends its workers."""
        loader = evaluation_loader(self._fabric, self.table, self.val_rows, self._loader)
        loader.constant, loader.digests = self._constant, self.digests
        return loader

    def gather_digests(self) -> None:
        """Merge `digests` over the ranks. Collective: all ranks must call it."""
        if self._fabric.world_size > 1:
            found = torch.from_numpy(self.digests).to(self._fabric.device)
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
            self.digests[:] = found.cpu().numpy()

    def describe_blank_images(self) -> str:
        """Warning about blank images read since the last call; "" if there are none.

        Collective: all ranks must call it.
        """
        found = torch.from_numpy(self._constant).to(self._fabric.device, torch.float32)
        of_all = self._fabric.all_reduce(found, reduce_op="sum")
        assert isinstance(of_all, Tensor)
        rows = np.flatnonzero((of_all.cpu().numpy() > 0) & ~self._reported)
        self._reported[rows] = True
        return (
            describe_blank_images([self.table.ids[row] for row in rows.tolist()])
            if len(rows)
            else ""
        )

    def training_counts(self, draws: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`count_positives` of the training part or its `draws`."""
        rows = self.train_rows if draws is None else self.train_rows[draws]
        return count_positives(self.table.targets[rows])

    def drawn_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """`training_counts` over as many draws as there are images, or an epoch's if more."""
        size = max(len(self.train_rows), self.sampler.epoch_size)
        return self.training_counts(self.sampler.draws(0, size))

    def epoch_plan(self, epoch: int) -> np.ndarray:
        """Positions among `train_rows` of the images of `epoch` (from 0), in order, int64."""
        return self.sampler(epoch)[: self.updates_per_epoch * self.images_per_update]


def describe_sampling(data: FoldData) -> str:
    """Text table of the first epoch's draws by class and weighted source.

    A draw counts for every positive class of its image. "" if each image is drawn once.
    """
    if data.sampler.name == "uniform" and data.shares is None:
        return ""
    plan, table = data.epoch_plan(0), data.table
    known = table.binary_targets[data.train_rows] == 1
    positive = np.column_stack([known, ~known.any(axis=1)])  # (N, C + 1)
    lines = [
        f"Sampler {data.sampling}, fold {data.fold}: an epoch makes "
        f"{len(plan):,} draws from {len(known):,} images."
    ]
    if data.shares is not None:
        assert table.sources is not None
        names = table.source_names
        of_source = table.sources[data.train_rows][:, None] == np.arange(len(names))
        lines += _drawn_table(names, "images", of_source, plan)
        if unused := [names[source] for source in np.flatnonzero(data.shares == 0)]:
            lines.append(f"Not trained on, by its weight of 0: {', '.join(unused)}.")
    lines += _drawn_table([*table.class_names, "(no positive)"], "positives", positive, plan)
    if missing := [table.class_names[c] for c in np.flatnonzero(~known.any(axis=0))]:
        lines.append(f"Left out, as no image here is positive: {', '.join(missing)}.")
    return "\n".join(lines)


def _drawn_table(names: Sequence[str], what: str, held: np.ndarray, plan: np.ndarray) -> list[str]:
    """Table lines of images and draws of each name, from `held` (N, K) bool; empty names are left
    out."""
    width = max(map(len, names))
    rows = zip(names, held.sum(axis=0), held[plan].sum(axis=0), strict=True)
    return [f"{'':<{width}}  {what:>9}  {'drawn an epoch':>14}"] + [
        f"{name:<{width}}  {count:>9,}  {draws:>14,}" for name, count, draws in rows if count
    ]


def check_packs(table: LabelTable, size: int) -> list[str]:
    """`Images.check_sizes` for a training at `size` pixels.

    Also raises UserError if the table has images that were unreadable when packed.
    """
    notes = table.images.check_sizes([size])
    if bad := table.images.unreadable():
        names = [table.ids[place] for place, _ in bad]
        raise UserError(
            f"{len(bad):,} of {len(table):,} images could not be read when they were packed: "
            f"{list_first(names)} ({bad[0][1].rstrip('.')}); pack them again, or remove their "
            "rows"
        )
    return notes
