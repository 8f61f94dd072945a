"""Probabilities of several models for the same images, each image decoded once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from core.data.loading.dataset import decoding_loader
from core.data.tables.label_table import LabelTable
from core.errors import UserError, counted
from ensemble.predict.blocks import Block, Parts
from ensemble.predict.dataset import ImagesAtSizes, collate
from ensemble.predict.members import Member
from ensemble.predict.merge import merge_views
from ensemble.predict.tta import VIEWS
from ensemble.predict.write_csv import Finish, write_predictions


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views of each image, and how their probabilities are merged."""

    names: str = "flip"
    """One of VIEWS."""
    merge: str = "mean"
    """A mode of `merge_views`."""


class Predictor:
    """Models on a device that see the same views of the same images."""

    def __init__(
        self, fabric: Fabric, members: Sequence[Member], class_names: Sequence[str], views: Views
    ) -> None:
        self.fabric, self.members, self.views = fabric, members, views
        self.sizes = sorted({member.info.image_size for member in members})
        self.class_names = list(class_names)
        self._places = [member.places(class_names) for member in members]
        for member in members:
            member.model.to(memory_format=torch.channels_last).to(fabric.device)

    @property
    def identity(self) -> str:
        """A text that another ensemble, other views or another precision do not share."""
        told = [member.digest for member in self.members] + self.class_names
        device = self.fabric.device.type
        with self.fabric.autocast():
            cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        told += [self.views.names, self.views.merge, device, str(cast), torch.__version__]
        return json.dumps(told)

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> NDArray[np.float32]:
        """Probabilities (M, B, C) of uint8 (B, 1, size, size) for each of `sizes`.

        The views are merged; a class that a model lacks is NaN. Raises UserError where a model
        gives what is not finite.
        """
        shape = (len(self.members), len(images[0]), len(self.class_names))
        merged = np.full(shape, np.nan, dtype=np.float32)
        seen: dict[int, list[Tensor]] = {size: [] for size in self.sizes}
        for number, pixels in enumerate(images):
            scaled = pixels.to(self.fabric.device, non_blocking=True) / 255
            seen[self.sizes[number]] = [view(scaled) for view in VIEWS[self.views.names]]
        said = []
        for member in self.members:
            with self.fabric.autocast():
                logits = [member.model(view).float() for view in seen[member.info.image_size]]
            said.append(merge_views(torch.stack(logits).sigmoid(), self.views.merge))
        # only now, so that a device need not wait between two models
        for number, (places, own) in enumerate(self._places):
            probabilities = said[number].cpu().numpy()
            if not np.isfinite(probabilities).all():
                path = self.members[number].path
                raise UserError(f"{path} gives probabilities that are not finite")
            merged[number][:, places] = probabilities[:, own]
        return merged


def predict_to_csv(
    fabric: Fabric,
    predictor: Predictor,
    images: LabelTable,
    output: Path,
    finish: Finish,
    *,
    batch_size: int,
    workers: int,
    overwrite: bool,
) -> None:
    """Predict `images` with all processes and write one CSV, whole or not at all; says where it is.

    What was predicted is kept beside `output` until then, so that the same command goes on after a
    kill. Raises UserError where an image cannot be read, a pack is smaller than a model's images, a
    probability is not finite, the disk is full, and where `output` is there already (unless
    `overwrite`).
    """
    for sentence in images.images.check_sizes(predictor.sizes):
        if fabric.is_global_zero:
            print(sentence)
    with Parts(output, images.images, predictor.identity, batch_size) as parts:
        missing = parts.open() if fabric.is_global_zero else []
        # all there: a run that was killed while it wrote
        if missing and output.exists() and not overwrite:
            raise UserError(already_there(output))
        if fabric.is_global_zero:
            if others := parts.clean():
                kept = counted(others, "kept block")
                print(f"Deleted {kept} of other images, models, views or batches.")
            if len(missing) < len(parts):
                there = len(parts) - len(missing)
                print(f"Going on: {there:,} of {len(parts):,} blocks are there.")
        missing = fabric.broadcast(missing)
        try:
            _predict_blocks(fabric, predictor, parts, missing, workers)
        except (KeyboardInterrupt, SystemExit):
            if fabric.is_global_zero:
                print("\nStopped. The same command goes on where this one was.")
            raise
        if fabric.is_global_zero:
            told = write_predictions(parts, images, predictor.class_names, finish)
            models, views = len(predictor.members), predictor.views.names
            by = counted(models, "model")
            print(f"predictions  {output} ({told} by {by}, views: {views})")


def already_there(output: Path) -> str:
    """What to say where a file would be overwritten."""
    return f"{output} is there already: name another --output, or pass --overwrite to replace it"


def _predict_blocks(
    fabric: Fabric, predictor: Predictor, parts: Parts, missing: Sequence[int], workers: int
) -> None:
    """Let each process predict its share of the `missing` blocks."""
    mine = missing[fabric.global_rank :: fabric.world_size]
    batches = parts.batches(mine)
    decoded = decoding_loader(
        ImagesAtSizes(parts.images, predictor.sizes),
        batches,
        min(workers, len(batches)),
        collate=collate,
        pin_memory=fabric.device.type == "cuda",
    )
    several = f" (process 1 of {fabric.world_size})" if fabric.world_size > 1 else ""
    with tqdm(
        desc=f"predicting{several}",
        total=sum(map(len, batches)),
        unit="img",
        disable=None if fabric.is_global_zero else True,
    ) as bar:
        stream = iter(decoded)
        for number in mine:
            said = [np.empty((len(predictor.members), 0, len(predictor.class_names)), np.float32)]
            positions: list[int] = []
            unreadable: list[tuple[int, str]] = []
            for batch in islice(stream, len(parts.batches([number]))):
                if batch.positions:
                    said.append(predictor(batch.images))
                positions += batch.positions
                unreadable += batch.unreadable
                bar.update(len(batch.positions) + len(batch.unreadable))
            block = Block(np.array(positions, np.int64), np.concatenate(said, axis=1), unreadable)
            parts.write(number, block)
    fabric.barrier()
