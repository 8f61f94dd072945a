"""Batches of each rank, cut from the plan of an epoch."""

from collections.abc import Callable, Iterator

import numpy as np

Sample = tuple[int, int, int]
"""Epoch, place in the epoch's global plan, and position among the rows (-1: padding)."""


def training_batches(
    plan: Callable[[int], np.ndarray],
    batch_size: int,
    batches_per_epoch: int,
    epochs: range,
    skip: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Sample]]:
    """Batches of samples for `rank`, over all `epochs`, so that workers prefetch across epochs.

    Global batch k of an epoch is plan[k R B : (k+1) R B], cut into slices of B for the R ranks.
    Batches beyond `batches_per_epoch` and the first `skip` of the first epoch are dropped.
    """
    for epoch in epochs:
        order = plan(epoch)
        for batch in range(skip if epoch == epochs.start else 0, batches_per_epoch):
            start = (batch * world_size + rank) * batch_size
            positions = order[start : start + batch_size].tolist()
            yield [(epoch, place, p) for place, p in enumerate(positions, start)]


def evaluation_batches(
    images: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[Sample]]:
    """Batches of samples for `rank`, which together have every image once.

    They are padded with -1 to equal number and size, as gathering needs.
    """
    batches = -(-images // (batch_size * world_size))
    padded = np.full(batches * batch_size * world_size, -1)
    padded[:images] = np.arange(images)
    mine = padded.reshape(batches, world_size, batch_size)[:, rank].tolist()
    # in table order, place and position are equal
    return [[(0, position, position) for position in batch] for batch in mine]
