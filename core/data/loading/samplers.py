"""Samplers (endless sequences of draws) and the batches that each process takes of them.

An epoch takes `epoch_size` draws where the one before ended. Each draw depends on the seed and its
place in the sequence alone, so that no state is kept. With --source_weights each source has its own
sequence, and so has the order in which the sources come.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from core.errors import UserError

THRESHOLD = 0.01
"""Prevalence below which repeat_factor repeats a class's images (t of Gupta 2019)."""
MOST_REPEATS = 10
# factors as whole numbers of this part: their sums are exact in any order
UNIT = 2**32
# short shuffles are made so many images at a time
BLOCK = 2**14
# draws over which sources' shares are kept, where all shares are large
FEWEST = 64

Sample = tuple[int, int, int]
"""Epoch, place in the epoch's global plan, and position among the rows (-1: padding)."""


@dataclass(frozen=True)
class Sampler:
    """Positions of the images to draw, epoch by epoch."""

    name: str
    epoch_size: int
    draws: Callable[[int, int], np.ndarray]
    """(start, stop) -> the positions of these draws of the endless sequence, int64."""

    def __call__(self, epoch: int) -> np.ndarray:
        """The plan of `epoch` (from 0), int64 (epoch_size,)."""
        return self.draws(epoch * self.epoch_size, (epoch + 1) * self.epoch_size)


def build_sampler(
    name: str, targets: np.ndarray, seed: int, epoch_size: int | None = None
) -> Sampler:
    """The sampler `name` of `LoaderConfig` for `targets` (N, C) of 1, 0 and NaN for unknown.

    An epoch takes `epoch_size` draws; unless given N, or repeat_factor's sum of factors (rounded
    down). Raises UserError where a sampler finds no positive label.
    """
    length = len(targets)
    if name != "uniform" and not (targets == 1).any():
        raise UserError(
            f"none of the {length:,} images to train on has a positive label, by which --sampler "
            f"{name} draws: check the labels, or take --sampler uniform"
        )
    draws: Callable[[int, int], np.ndarray]
    if name == "uniform":
        draws = partial(shuffles, np.arange(length), (seed,))
    elif name == "class_aware":
        draws = partial(class_turns, images_by_class(targets), seed)
    else:
        factors = np.rint(repeat_factors(targets) * UNIT).astype(np.int64)
        draws, length = partial(repeats, factors, seed), int(factors.sum()) // UNIT
    return Sampler(name, epoch_size or length, draws)


def shuffles(items: np.ndarray, stream: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of `items` shuffled by `stream`, shuffled again, and so on for ever."""
    rounds = -(-BLOCK // len(items))
    rows = np.tile(items, (rounds, 1))

    def block(number: int) -> np.ndarray:
        return np.random.default_rng((*stream, number)).permuted(rows, axis=1).ravel()

    return stretch(block, rows.size, start, stop)


def images_by_class(targets: np.ndarray) -> list[np.ndarray]:
    """Positions of the positives of each class that has any, then of the images without one.

    Images of which no label is known are in none.
    """
    positive = targets == 1
    classes, positions = np.nonzero(positive.T)
    parts = np.split(positions, np.searchsorted(classes, np.arange(1, targets.shape[1])))
    # an image of which nothing is known teaches nothing
    known = ~np.isnan(targets).all(axis=1)
    parts.append(np.flatnonzero(known & ~positive.any(axis=1)))
    return [part for part in parts if len(part)]


def class_turns(images_of: list[np.ndarray], seed: int, start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of class-aware sampling (Shen 2016): cycle j is a shuffle of the classes,
    in which class c gives draw j of its own endless shuffles of `images_of`[c]."""
    classes = len(images_of)
    first, last = start // classes, -(-stop // classes)
    order = shuffles(np.arange(classes), (seed, 0), start, stop)
    given = np.stack(
        [shuffles(own, (seed, 1 + c), first, last) for c, own in enumerate(images_of)]
    )  # (classes, cycles)
    return given[order, np.arange(start, stop) // classes - first]


def repeat_factors(targets: np.ndarray) -> np.ndarray:
    """How often an epoch draws each image on average, float64 (N,) (Gupta 2019).

    The largest of r_c = max(1, sqrt(t / f_c)) over its positives c, at most 10; 1 where it has
    none. f_c is the prevalence among the class's known labels.
    """
    positive = targets == 1
    known = (~np.isnan(targets)).sum(axis=0)
    prevalence = positive.sum(axis=0) / np.maximum(known, 1)
    # a class without positives has no image to repeat
    of_class = np.sqrt(THRESHOLD / np.where(prevalence > 0, prevalence, 1)).clip(1, MOST_REPEATS)
    factors = np.ones(len(targets))
    # the rarest last, so that its factor stays
    for c in np.argsort(of_class):
        factors[positive[:, c]] = of_class[c]
    return factors


def repeats(factors: np.ndarray, seed: int, start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of rounds in which image i comes `factors`[i] / UNIT times on average.

    Systematic rounding: with C the sums of the factors over shuffled images and one random u,
    image i comes floor(C_i + u) - floor(C_(i-1) + u) times. u is drawn below 1 - (the fraction of
    the whole sum), so that each round has floor(sum) draws.
    """
    total = int(factors.sum())

    def one_round(number: int) -> np.ndarray:
        random = np.random.default_rng((seed, number))
        images = random.permutation(len(factors))
        sums = np.cumsum(factors[images]) + random.integers(UNIT - total % UNIT)
        drawn = np.repeat(images, np.diff(sums // UNIT, prepend=0))
        random.shuffle(drawn)
        return drawn

    return stretch(one_round, total // UNIT, start, stop)


def stretch(block: Callable[[int], np.ndarray], size: int, start: int, stop: int) -> np.ndarray:
    """Items [start, stop) of block(0), block(1), ... one after another, of `size` items each."""
    first, last = start // size, -(-stop // size)
    blocks = np.concatenate([block(number) for number in range(first, last)])
    return blocks[start - first * size : stop - first * size]


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


def training_batches(
    plan: Callable[[int], np.ndarray],
    batch_size: int,
    batches_per_epoch: int,
    epochs: range,
    skip: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Sample]]:
    """Batches of samples for process `rank`, over all `epochs`, so that workers prefetch on.

    Global batch k of an epoch is plan[k R B : (k+1) R B], cut into the R ranks' slices of B; what
    is beyond `batches_per_epoch` is dropped, as are the first `skip` batches of the first epoch.
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
    """Batches of samples for one process: every image once over all ranks, padded with -1 to
    equally many batches of equal size, as gathering needs."""
    batches = -(-images // (batch_size * world_size))
    padded = np.full(batches * batch_size * world_size, -1)
    padded[:images] = np.arange(images)
    mine = padded.reshape(batches, world_size, batch_size)[:, rank].tolist()
    # in the table's order, a position is its own place
    return [[(0, position, position) for position in batch] for batch in mine]
