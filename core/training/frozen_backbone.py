"""Frozen backbone as a batch source: features in place of images, cached where that pays.

With V cached passes the head epochs 0 .. V-1 compute the features of their images and write them to
the cache; epoch e >= V trains on those of epoch e mod V, reshuffled. Features of validation images
are the same in every epoch of the phase.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData
from core.models.predict import broadcast_buffers, mean_probability, restore_order, validation_views
from core.runtime.log import logger
from core.runtime.progress_bar import ProgressBar
from core.training.feature_cache import GB, FeatureCache, NoRoomError
from core.training.run import Run


@dataclass(kw_only=True)
class FrozenBackbone:
    """Features of a frozen `model.backbone` as batches for `model.head`, in `epochs` of the fold.

    `passes`: training passes to cache in the run folder; 0: no cache, for validation images
    neither. If the disk is too small, features are computed in each epoch and `log` gets a note.
    `pause` is called between batches that only fill the cache.
    """

    run: Run
    model: nn.Module
    data: FoldData
    validation: Batches
    epochs: range
    passes: int
    pause: Callable[[], None]
    _training: FeatureCache | None = field(default=None, init=False)
    _validation: FeatureCache | None = field(default=None, init=False)
    # table rows of the validation images, by batch; empty until all of them are cached
    _validation_rows: list[Tensor] = field(default_factory=list, init=False)
    _validation_fits: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._fabric, config = self.run.fabric, self.run.config
        self._seed, self._accumulate = config.split.seed, config.optim.accumulate
        self._views = validation_views(config.loop.tta)
        self._per_update = self.data.images_per_update // self._fabric.world_size
        self._per_pass = self._per_update * self.data.updates_per_epoch
        # only passes that a later epoch reuses are cached
        self._cached = max(0, min(self.passes, len(self.epochs) - self.passes))
        self._rows = np.zeros(self._cached * self._per_pass, dtype=np.int64)

    @property
    def part(self) -> nn.Module:
        return self.model.get_submodule("head")

    def set_train(self) -> None:
        self.part.train()
        self.model.get_submodule("backbone").eval()

    def batches(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Batches with features (B, F) or (B, F, h, w), on the device, in place of images."""
        self._refill_cache(first, updates_done)
        computed = min(last, self.epochs.start + self.passes) if self._cached else last
        if first < computed:
            yield from self._compute(first, computed, updates_done)
            first, updates_done = computed, 0
        if self._cached:
            for epoch in range(first, last):
                yield from self._read_cache(epoch, updates_done if epoch == first else 0)
        elif first < last:
            # the disk was too small for a cache
            yield from self._compute(first, last, updates_done)

    @torch.no_grad()
    def predict(self, evaluated: nn.Module, *, again: bool) -> np.ndarray:
        broadcast_buffers(self._fabric, evaluated)
        head = evaluated.get_submodule("head")
        results, seen = [], []
        for features, batch_rows in self._validation_features(evaluated, again=again):
            with self._fabric.autocast():
                results.append(mean_probability(head(self._unflatten(copy)) for copy in features))
            seen.append(batch_rows)
        return restore_order(self._fabric, results, seen, self.data.val_rows)

    def _compute(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Compute batches of epochs [first, last), and cache those that a later epoch reuses."""
        place = (first - self.epochs.start) * self._per_pass + updates_done * self._per_update
        for batch in self.data.training(first, last, updates_done):
            features = self._features(self.model, batch.images)
            self._write_cache(place, features, batch.rows)
            place += len(batch.rows)
            yield Batch(self._unflatten(features), batch.targets, batch.rows)

    def _read_cache(self, epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of an epoch from cached features."""
        assert self._training is not None
        start = (epoch - self.epochs.start) % self.passes * self._per_pass
        random = np.random.default_rng((self._seed, epoch, self._fabric.global_rank))
        order = start + random.permutation(self._per_pass)
        for places in order.reshape(-1, self._per_update // self._accumulate)[
            updates_done * self._accumulate :
        ]:
            rows = self._rows[places]
            yield Batch(
                self._unflatten(self._training.read(places)),
                torch.from_numpy(self.data.table.targets[rows]),
                torch.from_numpy(rows),
            )

    def _write_cache(self, place: int, features: Tensor, rows: Tensor) -> None:
        if place >= len(self._rows):
            return
        if self._training is None:
            self._training = self._create_cache(len(self._rows), features, "training")
            if self._training is None:
                self._cached, self._rows = 0, self._rows[:0]
                return
        self._training.write(place, features)
        self._rows[place : place + len(rows)] = rows.numpy()

    def _refill_cache(self, epoch: int, update: int) -> None:
        """Compute the cache of an earlier start again, for a resume at `update` of `epoch`."""
        if not self._cached:
            return
        done = epoch - self.epochs.start
        needed = {later % self.passes for later in range(max(done, self.passes), len(self.epochs))}
        updates = {number: self.data.updates_per_epoch for number in needed if number < done}
        if update and done in needed:
            updates[done] = update
        for number, count in sorted(updates.items()):
            again = self.epochs.start + number
            batches = islice(self._compute(again, again + 1, 0), count * self._accumulate)
            title, total = f"features of epoch {again + 1} again", count * self._accumulate
            disable = None if self._fabric.is_global_zero else True
            for _ in ProgressBar(batches, title, total, disable=disable, leave=False):
                self.pause()
                if not self._cached:
                    return

    def _validation_features(
        self, evaluated: nn.Module, *, again: bool
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """For each batch its features by augmented copy, and its table rows."""
        if self._validation_rows:
            assert self._validation is not None
            start = 0
            for rows in self._validation_rows:
                places = np.arange(start, start + len(self._views) * len(rows))
                cached = self._validation.read(places)
                yield list(cached.split(len(rows))), rows
                start += len(places)
            return
        ours, theirs = (
            one.get_submodule("backbone").state_dict() for one in (self.model, evaluated)
        )
        # the backbone of a moving average may differ and change
        wanted = again and self.passes > 0 and self._validation_fits
        keep = wanted and all(torch.equal(ours[name], theirs[name]) for name in ours)
        start, seen = 0, []
        for batch in self.validation:
            images = batch.images.to(self._fabric.device, non_blocking=True)
            features = [self._features(evaluated, view(images)) for view in self._views]
            if keep and self._validation is None:
                count = len(self.validation) * len(self._views) * len(images)
                self._validation = self._create_cache(count, features[0], "validation")
                keep = self._validation_fits = self._validation is not None
            if keep and self._validation is not None:
                for rows in features:
                    self._validation.write(start, rows)
                    start += len(rows)
                seen.append(batch.rows)
            yield features, batch.rows
        if self.run.measured:
            self.run.measured.add_features(features[0][0].nbytes, len(self._views))
        self._validation_rows = seen

    @torch.no_grad()
    def _features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Features as rows (B, D), flattened channels last, as in the cache."""
        with self._fabric.autocast():
            images = images.to(self._fabric.device, non_blocking=True)
            features = model.get_submodule("backbone")(images).movedim(1, -1)
        self._shape = features.shape[1:]
        return features.flatten(1).contiguous()

    def _unflatten(self, rows: Tensor) -> Tensor:
        """Features (B, F, ...) of rows (B, D)."""
        return rows.unflatten(1, self._shape).movedim(-1, 1)

    def _create_cache(self, count: int, like: Tensor, what: str) -> FeatureCache | None:
        folder = self.run.folder.path
        try:
            cache = FeatureCache(self._fabric, folder, count, like)
        except NoRoomError as error:
            logger.info(
                f"The features of the {what} images {error}: they are computed in each head epoch, "
                "as by --head_phase exact."
            )
            return None
        if cache.bytes > GB:
            logger.info(
                f"Caching the features of the {what} images, {cache.bytes / GB:.3g} GB, on the "
                f"disk of {folder} until the head phase ends."
            )
        return cache
