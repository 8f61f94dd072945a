"""Sampler of several sources by `--source_weights`.

Each source has an endless sequence of the same sampler as without weights, and so has the order in
which the sources come.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from core.data.loading.samplers import BLOCK, Sampler, build_sampler, stretch
from core.errors import UserError

# draws over which the sources' shares are kept, where all shares are large
FEWEST = 64


def build_mixture(
    name: str,
    targets: np.ndarray,
    seed: int,
    epoch_size: int | None,
    sources: np.ndarray,
    shares: np.ndarray,
    source_names: Sequence[str],
) -> Sampler:
    """The sampler `name` by source: `sources` (N,) says which of `shares` (S,) an image is from.

    Targets (N, C). An epoch takes `epoch_size` draws; unless given as many as the sources that are
    drawn from would take by themselves, together. Raises UserError as `build_sampler` does, with
    the name of the source, and where one that is to be drawn from has no image.
    """
    drawn = np.flatnonzero(shares > 0).tolist()
    plans, images = [], []
    for source in drawn:
        rows = np.flatnonzero(sources == source)
        if not len(rows):
            raise UserError(
                f"source '{source_names[source]}' has no image to train on: set its weight of "
                "--source_weights to 0"
            )
        # streams of random numbers that no other source has
        own = int(np.random.SeedSequence((seed, source)).generate_state(1)[0])
        try:
            plans.append(build_sampler(name, targets[rows], own))
        except UserError as error:
            raise UserError(f"source '{source_names[source]}': {error}") from error
        images.append(rows)
    length = epoch_size or sum(plan.epoch_size for plan in plans)
    return Sampler(name, length, partial(mixed, plans, images, shares[drawn], seed))


def mixed(
    plans: Sequence[Sampler],
    images: Sequence[np.ndarray],
    shares: np.ndarray,
    seed: int,
    start: int,
    stop: int,
) -> np.ndarray:
    """Draws [start, stop) of the sources' own sequences, mixed by `shares` (S,), all above 0.

    Positions among all images, int64. At the end of any block no source is further than one draw
    from its share of all draws so far; within a block their order is random.
    """
    size = max(FEWEST, int(np.ceil(2 / shares.min())))
    blocks = max(1, BLOCK // size)
    # random numbers are made for so many draws at a time
    first = start // (size * blocks) * (size * blocks)
    order = stretch(partial(_turns, shares, size, blocks, seed), size * blocks, first, stop)
    positions = np.empty(len(order), dtype=np.int64)
    before = _given(shares, np.array([first]))[0]
    for source, (plan, rows) in enumerate(zip(plans, images, strict=True)):
        places = np.flatnonzero(order == source)
        begin = int(before[source])
        if len(places):
            positions[places] = rows[plan.draws(begin, begin + len(places))]
    return positions[start - first :]


def _turns(shares: np.ndarray, size: int, blocks: int, seed: int, number: int) -> np.ndarray:
    """Which source gives each draw of `blocks` blocks of `size`, the part `number` of all."""
    ends = np.arange(number * blocks, (number + 1) * blocks + 1) * size
    counts = np.diff(_given(shares, ends), axis=0)  # (blocks, S)
    sources = np.repeat(np.tile(np.arange(len(shares)), blocks), counts.ravel())
    random = np.random.default_rng((seed, 0, 0, number))
    return random.permuted(sources.reshape(blocks, size), axis=1).ravel()


def _given(shares: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """How many of the first n draws each source gives, (D, S), for n of `draws` (D,).

    The difference of rounded sums of shares: within one draw of n times the share. It never falls
    from block to block where a block holds two draws of each source.
    """
    borders = np.concatenate([[0.0], np.cumsum(shares)])
    borders[-1] = 1
    return np.diff(np.floor(np.outer(draws, borders) + 0.5).astype(np.int64), axis=1)
