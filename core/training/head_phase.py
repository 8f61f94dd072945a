"""A phase that trains the head alone: features of the frozen backbone, kept where that saves work.

With V kept views the head epochs 0 .. V-1 compute the features of their images as always, and keep
them on the way; epoch e from V on trains on those of epoch e mod V, in batches shuffled anew. So an
epoch that has its own view costs nothing more, and a later one next to nothing. Validation images
have the same features in every epoch of the phase.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from core.data.loading.dataset import Batch, Batches, unspoiled
from core.data.loading.fold_data import FoldData
from core.models.predict import View, in_order, mean_probability, share_buffers
from core.training.feature_cache import KeptRows, NoRoomError

GB = 1e9


@dataclass(kw_only=True)
class HeadPhase:
    """Epochs `epochs` of a fold, which train `model.head` on features of a frozen `model.backbone`.

    `views`: training passes whose features are kept, in `folder`; 0: none, and nothing of the
    validation images. Where the disk is too small they are computed anew in each epoch, and `say`
    gets the sentence that tells so. `pause` is called between batches that are no training.
    """

    fabric: Fabric
    model: nn.Module
    data: FoldData
    epochs: range
    views: int
    accumulate: int
    seed: int
    folder: Path
    say: Callable[[str], None]
    pause: Callable[[], None]
    _training: KeptRows | None = field(default=None, init=False)
    _validation: KeptRows | None = field(default=None, init=False)
    # table rows of the validation images, by batch; empty until all of them are kept
    _validation_rows: list[Tensor] = field(default_factory=list, init=False)
    _validation_fits: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._per_update = self.data.images_per_update // self.fabric.world_size
        self._per_pass = self._per_update * self.data.updates_per_epoch
        # a pass that no later epoch would train on is not kept
        self._passes = max(0, min(self.views, len(self.epochs) - self.views)) if self.views else 0
        self._rows = np.zeros(self._passes * self._per_pass, dtype=np.int64)

    def batches(self, epoch: int, update: int) -> Iterator[Batch]:
        """As `FoldData.training` to the phase's end, from `update` of `epoch` on, with features
        (B, F) or (B, F, h, w) on the device in place of the images."""
        first, last = self.epochs.start, self.epochs.stop
        self._catch_up(epoch, update)
        with_own_view = first + self.views if self._passes else last
        if epoch < with_own_view:
            yield from self._computed(epoch, with_own_view, update)
            epoch, update = with_own_view, 0
        if self._passes:
            for later in range(epoch, last):
                yield from self._kept(later, update if later == epoch else 0)
        elif epoch < last:
            # there was no room to keep anything
            yield from self._computed(epoch, last, update)

    @torch.no_grad()
    def predict(
        self,
        evaluated: nn.Module,
        loader: Batches,
        rows: np.ndarray,
        *,
        views: Sequence[View],
        again: bool,
    ) -> np.ndarray:
        """As `core.models.predict.predict` of `evaluated`, the model or its moving average.

        `again`: there will be another call in this phase, so that keeping the features pays.
        """
        share_buffers(self.fabric, evaluated)
        head = evaluated.get_submodule("head")
        results, seen = [], []
        for features, batch_rows in self._validation_features(evaluated, loader, views, again):
            with self.fabric.autocast():
                results.append(mean_probability(head(self._shaped(view)) for view in features))
            seen.append(batch_rows)
        return in_order(self.fabric, results, seen, rows)

    def _computed(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last), kept on the way where a later epoch takes them."""
        place = (first - self.epochs.start) * self._per_pass + updates_done * self._per_update
        for batch in self.data.training(first, last, updates_done):
            features = self._features(self.model, batch.images)
            self._keep(place, features, batch.rows)
            place += len(batch.rows)
            yield Batch(self._shaped(features), batch.targets, batch.rows)

    def _kept(self, epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of an epoch without a view of its own."""
        assert self._training is not None
        start = (epoch - self.epochs.start) % self.views * self._per_pass
        random = np.random.default_rng((self.seed, epoch, self.fabric.global_rank))
        order = start + random.permutation(self._per_pass)
        for places in order.reshape(-1, self._per_update // self.accumulate)[
            updates_done * self.accumulate :
        ]:
            rows = self._rows[places]
            yield Batch(
                self._shaped(self._training.read(places)),
                torch.from_numpy(self.data.table.targets[rows]),
                torch.from_numpy(rows),
            )

    def _keep(self, place: int, features: Tensor, rows: Tensor) -> None:
        if place >= len(self._rows):
            return
        if self._training is None:
            self._training = self._room(len(self._rows), features, "training")
            if self._training is None:
                self._passes, self._rows = 0, self._rows[:0]
                return
        self._training.write(place, features)
        self._rows[place : place + len(rows)] = rows.numpy()

    def _catch_up(self, epoch: int, update: int) -> None:
        """Keep again what was kept before a stop at `update` of `epoch`, if it is still needed."""
        if not self._passes:
            return
        done = epoch - self.epochs.start
        needed = {later % self.views for later in range(max(done, self.views), len(self.epochs))}
        updates = {number: self.data.updates_per_epoch for number in needed if number < done}
        if update and done in needed:
            updates[done] = update
        for number, count in sorted(updates.items()):
            again = self.epochs.start + number
            batches = islice(self._computed(again, again + 1, 0), count * self.accumulate)
            speaks = self.fabric.is_global_zero
            for _ in tqdm(
                batches,
                desc=f"features of epoch {again + 1} once more",
                total=count * self.accumulate,
                disable=None if speaks else True,
                leave=False,
            ):
                self.pause()
                if not self._passes:
                    return

    def _validation_features(
        self, evaluated: nn.Module, loader: Batches, views: Sequence[View], again: bool
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The features of a batch, by view, and the batch's rows in the table."""
        if self._validation_rows:
            assert self._validation is not None
            start = 0
            for rows in self._validation_rows:
                places = np.arange(start, start + len(views) * len(rows))
                kept = self._validation.read(places)
                yield list(kept.split(len(rows))), rows
                start += len(places)
            return
        # an average that starts elsewhere moves
        wanted = again and self.views > 0 and self._validation_fits
        keep = wanted and _equal(self.model, evaluated)
        start, seen = 0, []
        for batch in unspoiled(loader):
            images = batch.images.to(self.fabric.device, non_blocking=True)
            features = [self._features(evaluated, view(images)) for view in views]
            if keep and self._validation is None:
                count = len(loader) * len(views) * len(images)
                self._validation = self._room(count, features[0], "validation")
                keep = self._validation_fits = self._validation is not None
            if keep and self._validation is not None:
                for rows in features:
                    self._validation.write(start, rows)
                    start += len(rows)
                seen.append(batch.rows)
            yield features, batch.rows
        self._validation_rows = seen

    @torch.no_grad()
    def _features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Features as rows (B, D), channels last: so they lie in memory, kept or not."""
        with self.fabric.autocast():
            images = images.to(self.fabric.device, non_blocking=True)
            features = model.get_submodule("backbone")(images).movedim(1, -1)
        self._shape = features.shape[1:]
        return features.flatten(1).contiguous()

    def _shaped(self, rows: Tensor) -> Tensor:
        """Rows (B, D) as the features that they were."""
        return rows.unflatten(1, self._shape).movedim(-1, 1)

    def _room(self, count: int, like: Tensor, what: str) -> KeptRows | None:
        try:
            kept = KeptRows(self.fabric, self.folder, count, like)
        except NoRoomError as error:
            self.say(
                f"The features of the {what} images would need {error.needed / GB:.3g} GB in "
                f"{self.folder}, where {error.free / GB:.3g} GB are free and half may be taken: "
                "they are computed anew in each head epoch, as --head_phase exact does."
            )
            return None
        if kept.bytes > GB:
            self.say(
                f"Keeps the features of the {what} images, {kept.bytes / GB:.3g} GB, on the disk "
                f"of {self.folder} until the head's epochs are over."
            )
        return kept


def _equal(model: nn.Module, other: nn.Module) -> bool:
    """Whether their backbones are the same to the last bit."""
    ours, theirs = (one.get_submodule("backbone").state_dict() for one in (model, other))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)
