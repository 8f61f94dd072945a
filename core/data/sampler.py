"""Which images make up each step: one global plan an epoch, sharded over the processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


def uniform_plan(images: int, seed: int, epoch: int) -> np.ndarray:
    """Each of `images` positions once, shuffled by (seed, epoch) alone; int64 (images,)."""
    return np.random.default_rng((seed, epoch)).permutation(images)


@dataclass(frozen=True, kw_only=True)
class TrainingBatches:
    """Batches of (epoch, position) for process `rank`, over epochs [first_epoch, last_epoch).

    Global batch k of an epoch is plan[k R B : (k+1) R B], cut into the R ranks' slices of B; what
    is beyond `batches_per_epoch` is dropped. The first `skip` batches of the first epoch are left
    out. One iteration runs over all epochs, so that workers prefetch across their borders.
    """

    images: int
    batch_size: int
    batches_per_epoch: int
    seed: int
    first_epoch: int
    last_epoch: int
    skip: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return (self.last_epoch - self.first_epoch) * self.batches_per_epoch - self.skip

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.first_epoch, self.last_epoch):
            plan = uniform_plan(self.images, self.seed, epoch)
            skipped = self.skip if epoch == self.first_epoch else 0
            for batch in range(skipped, self.batches_per_epoch):
                start = (batch * self.world_size + self.rank) * self.batch_size
                positions = plan[start : start + self.batch_size]
                yield [(epoch, int(position)) for position in positions]


class EvaluationBatches:
    """Batches of positions for one process: every image once over all ranks, padded with -1.

    All ranks have equally many batches of equal size, as gathering needs; -1 is left out after it.
    """

    def __init__(self, images: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        batches = -(-images // (batch_size * world_size))
        padded = np.full(batches * batch_size * world_size, -1)
        padded[:images] = np.arange(images)
        self._mine = padded.reshape(batches, world_size, batch_size)[:, rank]

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._mine:
            yield [(0, int(position)) for position in batch]
