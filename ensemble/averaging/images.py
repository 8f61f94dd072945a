"""Images for an average: training images for batch norm, held-out images for scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.data.loading.dataset import decoding_loader
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.models.data_digests import DigestSet
from core.runtime.progress_bar import ProgressBar
from ensemble.predict.dataset import DecodedBatch, ImagesAtSizes, collate
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.training_overlap import IMAGES, PATIENTS, can_be_compared, find_overlap


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Images of a table at `size` pixels a side, decoded by `workers` processes."""

    table: LabelTable
    size: int
    batch_size: int
    workers: int

    def read(
        self, rows: np.ndarray, title: str, digest_sizes: Sequence[int] = ()
    ) -> Iterator[DecodedBatch]:
        """Batches of the images of `rows`, (N,) int, in this order, with a progress bar.

        Raises UserError for an unreadable image.
        """
        images = self.table.take(rows).images
        places = range(len(rows))
        starts = places[:: self.batch_size]
        batches = [list(places[start : start + self.batch_size]) for start in starts]
        dataset = ImagesAtSizes(images, [self.size], digest_sizes)
        loader = decoding_loader(dataset, batches, min(self.workers, len(batches)), collate=collate)
        with ProgressBar(desc=title, total=len(rows), unit="img", disable=None, leave=False) as bar:
            for batch in loader:
                for place, reason in batch.unreadable[:1]:
                    raise UserError(f"{self.table.ids[rows[place]]} cannot be read: {reason}")
                yield batch
                bar.update(len(batch.positions))

    def draw(self, rows: np.ndarray, most: int, seed: int) -> Tensor:
        """At most `most` images of `rows` (N,), drawn by `seed`: uint8 (B, 1, size, size)."""
        drawn = np.random.default_rng(seed).permutation(rows)[:most]
        return torch.cat([batch.images[0] for batch in self.read(drawn, "reading images")])


@dataclass(frozen=True, eq=False)
class UnseenImages:
    """Images of a table that no checkpoint was trained on, nor their patients."""

    mask: np.ndarray
    """bool (N,); False also where a checkpoint does not show whether it was trained on it"""
    digests: tuple[DigestSet, ...]
    """digests of these images, as validation images"""


def find_unseen(ensemble: Ensemble, reader: ImageReader) -> UnseenImages:
    """Find the images of the reader's table that no member was trained on.

    Patients are compared first; the other images are decoded for a comparison of digests.
    """
    members, table, sizes = ensemble.members, reader.table, ensemble.digest_sizes
    unseen = np.ones(len(table), dtype=bool)
    named = np.zeros(len(table), dtype=bool) if table.patients is None else table.patients != ""
    for member in members:
        known = member.info.data_digests
        if known is None or not known.complete:
            unseen[:] = False
            continue
        unseen &= (named & known.of_patients) | can_be_compared(table.images, known.sizes())
    digests = np.zeros((len(table), len(sizes)), dtype=np.int64)

    def is_trained() -> np.ndarray:
        overlap = find_overlap(members, sizes, digests, np.arange(len(table)), table)
        return np.logical_or(overlap.rows[IMAGES[0]], overlap.rows[PATIENTS[0]])

    unseen &= ~is_trained()
    rows = np.flatnonzero(unseen)
    if len(rows):
        batches = reader.read(rows, "comparing images with the training", sizes)
        digests[rows] = np.concatenate([batch.digests for batch in batches])
        unseen &= ~is_trained()
    parts = (
        DigestSet("validation", np.setdiff1d(found, [0]), size)
        for size, found in zip(sizes, digests[unseen].T, strict=True)
    )
    return UnseenImages(unseen, tuple(parts))
