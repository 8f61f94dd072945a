"""Samplers: endless sequences of draws.

An epoch continues the sequence with the next `epoch_size` draws. Each draw depends only on the seed
and its place in the sequence, so there is no state to save. With --source_weights each source has
its own sequence, and another one orders the sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from core.errors import UserError

THRESHOLD = 0.01
"""Prevalence below which repeat_factor repeats a class's images (t of Gupta 2019)."""
MOST_REPEATS = 10
# fixed-point unit of the factors: integer sums are exact in any order
UNIT = 2**32
# draws generated at a time
BLOCK = 2**14
# minimum number of draws in which the sources have their shares
MIN_MIX_BLOCK = 64

Draws: TypeAlias = Callable[[int, int], np.ndarray]
"""(start, stop) -> positions of these draws of an endless sequence, int64."""


@dataclass(frozen=True)
class Sampler:
    """Positions of the images to draw in each epoch."""

    name: str
    epoch_size: int
    draws: Draws

    def __call__(self, epoch: int) -> np.ndarray:
        """Positions drawn in `epoch` (from 0), int64 (epoch_size,)."""
        return self.draws(epoch * self.epoch_size, (epoch + 1) * self.epoch_size)


def build_sampler(
    name: str,
    targets: np.ndarray,
    seed: int,
    epoch_size: int | None = None,
    *,
    mix: float = 0.0,
    cap: float | None = None,
) -> Sampler:
    """Build the sampler `name` of `LoaderConfig` for `targets` (N, C) of 1, 0 and NaN (unknown).

    `epoch_size` defaults to N, or to the sum of factors (rounded down) for repeat_factor. `mix` is
    the share of an epoch's draws that are uniform; `cap` limits the other draws of each class
    (repeat_factor: of each image) to that multiple of its images. Raises UserError if the sampler
    needs positive labels and there are none, and if `cap` allows fewer draws than an epoch has.
    """
    length = len(targets)
    if name != "uniform" and not (targets == 1).any():
        raise UserError(
            f"none of the {length:,} images to train on has a positive label, which --sampler "
            f"{name} needs: check the labels, or use --sampler uniform"
        )
    uniform: Draws = partial(draw_shuffled, np.arange(length), (seed,))
    if name == "uniform":
        return Sampler(name, epoch_size or length, uniform)
    draws: Draws
    if name == "class_aware":
        size = epoch_size or length
        draws = draw_classes(images_by_class(targets), seed, size - round(mix * size), cap)
    else:
        draws = partial(draw_repeated, exact_factors(targets, cap), seed)
        size = epoch_size or default_size(name, targets, cap)
    if mix:
        counts = [round(mix * size), size - round(mix * size)]
        # a random stream that neither part has
        draws = partial(draw_parts, [uniform, draws], counts, (seed, 0, 0))
    return Sampler(name, size, draws)


def default_size(name: str, targets: np.ndarray, cap: float | None) -> int:
    """Draws of an epoch of the sampler `name` for `targets` (N, C), unless they are given."""
    if name != "repeat_factor":
        return len(targets)
    return int(exact_factors(targets, cap).sum()) // UNIT


def exact_factors(targets: np.ndarray, cap: float | None) -> np.ndarray:
    """`repeat_factors` of at most `cap`, in multiples of 1 / UNIT, int64 (N,)."""
    factors = repeat_factors(targets).clip(1, cap or MOST_REPEATS)
    return np.rint(factors * UNIT).astype(np.int64)


def draw_parts(
    parts: Sequence[Draws], counts: Sequence[int], stream: tuple[int, ...], start: int, stop: int
) -> np.ndarray:
    """Draws [start, stop) of epochs that shuffle the next `counts`[k] draws of each part k."""

    def one_epoch(number: int) -> np.ndarray:
        drawn = [
            draws(number * count, (number + 1) * count)
            for draws, count in zip(parts, counts, strict=True)
            if count
        ]
        return np.random.default_rng((*stream, number)).permutation(np.concatenate(drawn))

    return slice_blocks(one_epoch, sum(counts), start, stop)


def draw_shuffled(items: np.ndarray, stream: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of repeated random permutations of `items`, seeded by `stream`."""
    rounds = -(-BLOCK // len(items))
    rows = np.tile(items, (rounds, 1))

    def block(number: int) -> np.ndarray:
        return np.random.default_rng((*stream, number)).permuted(rows, axis=1).ravel()

    return slice_blocks(block, rows.size, start, stop)


def images_by_class(targets: np.ndarray) -> list[np.ndarray]:
    """Positions of the positives of each class that has any, then of images without positives.

    Images without any known label are left out.
    """
    positive = targets == 1
    classes, positions = np.nonzero(positive.T)
    parts = np.split(positions, np.searchsorted(classes, np.arange(1, targets.shape[1])))
    # images without known labels do not contribute to the loss
    known = ~np.isnan(targets).all(axis=1)
    parts.append(np.flatnonzero(known & ~positive.any(axis=1)))
    return [part for part in parts if len(part)]


def draw_by_class(images_of: list[np.ndarray], seed: int, start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of class-aware sampling (Shen 2016).

    Cycle j is a permutation of the classes; class c yields draw j of the repeated permutations of
    `images_of`[c].
    """
    classes = len(images_of)
    first, last = start // classes, -(-stop // classes)
    order = draw_shuffled(np.arange(classes), (seed, 0), start, stop)
    drawn = np.stack(
        [draw_shuffled(own, (seed, 1 + c), first, last) for c, own in enumerate(images_of)]
    )  # (classes, cycles)
    return drawn[order, np.arange(start, stop) // classes - first]


def draw_classes(
    images_of: list[np.ndarray], seed: int, epoch_size: int, cap: float | None
) -> Draws:
    """Class-aware sampling with at most `cap` draws an epoch for each image of a class.

    What a class leaves over at its cap goes to the others in equal parts. Raises UserError if all
    classes are at their caps before an epoch has `epoch_size` draws.
    """
    if cap is None:
        return partial(draw_by_class, images_of, seed)
    most = np.floor([cap * len(own) for own in images_of]).astype(int)
    if most.sum() < epoch_size:
        raise UserError(
            f"--sampler_cap {cap:g} allows {most.sum():,} draws an epoch, which has "
            f"{epoch_size:,}: raise it, or lower --epoch_size"
        )
    parts = [partial(draw_shuffled, own, (seed, 1 + c)) for c, own in enumerate(images_of)]
    return partial(draw_parts, parts, fill_evenly(most, epoch_size).tolist(), (seed, 0))


def fill_evenly(most: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` into parts (K,) as equal as the limits `most` (K,) allow, all int."""
    order = np.argsort(most, kind="stable")
    parts = np.zeros_like(most)
    for rank, place in enumerate(order):
        # the smallest first: what it leaves over is divided among the rest
        parts[place] = min(most[place], -(-(total - parts.sum()) // (len(most) - rank)))
    return parts


def repeat_factors(targets: np.ndarray) -> np.ndarray:
    """Expected draws of each image per epoch, float64 (N,) (repeat factor, Gupta 2019).

    The maximum of r_c = max(1, sqrt(t / f_c)) over the image's positive classes c, at most 10; 1
    without positives. f_c is the prevalence among the class's known labels.
    """
    positive = targets == 1
    known = (~np.isnan(targets)).sum(axis=0)
    prevalence = positive.sum(axis=0) / np.maximum(known, 1)
    # a class without positives has no image to repeat
    of_class = np.sqrt(THRESHOLD / np.where(prevalence > 0, prevalence, 1)).clip(1, MOST_REPEATS)
    factors = np.ones(len(targets))
    # the rarest last: its factor is the largest
    for c in np.argsort(of_class):
        factors[positive[:, c]] = of_class[c]
    return factors


def draw_repeated(factors: np.ndarray, seed: int, start: int, stop: int) -> np.ndarray:
    """Draws [start, stop) of rounds in which image i occurs `factors`[i] / UNIT times on average.

    Systematic rounding: with cumulative factors C over shuffled images and one random u, image i
    occurs floor(C_i + u) - floor(C_(i-1) + u) times. u is below 1 - (fractional part of the total),
    so that each round has floor(total) draws.
    """
    total = int(factors.sum())

    def one_round(number: int) -> np.ndarray:
        random = np.random.default_rng((seed, number))
        images = random.permutation(len(factors))
        sums = np.cumsum(factors[images]) + random.integers(UNIT - total % UNIT)
        drawn = np.repeat(images, np.diff(sums // UNIT, prepend=0))
        random.shuffle(drawn)
        return drawn

    return slice_blocks(one_round, total // UNIT, start, stop)


def slice_blocks(
    block: Callable[[int], np.ndarray], size: int, start: int, stop: int
) -> np.ndarray:
    """Items [start, stop) of the concatenation of block(0), block(1), ..., of `size` items each."""
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
    **options: Any,
) -> Sampler:
    """Build the sampler `name` for each source, mixed by `shares` (S,).

    `targets` are (N, C), `sources` (N,) the source index of each image. `epoch_size` defaults to
    the sum over the drawn sources; `options` are `mix` and `cap` of `build_sampler`. Raises
    UserError like `build_sampler`, with the name of the source, and for a source with a positive
    share and no images.
    """
    drawn = np.flatnonzero(shares > 0).tolist()
    plans, images = [], []
    length = epoch_size
    if length is None:
        of_source = [targets[sources == source] for source in drawn]
        length = sum(default_size(name, one, options.get("cap")) for one in of_source)
    for source in drawn:
        rows = np.flatnonzero(sources == source)
        if not len(rows):
            raise UserError(
                f"source '{source_names[source]}' has no image to train on: set its weight of "
                "--source_weights to 0"
            )
        # independent random streams per source
        own = int(np.random.SeedSequence((seed, source)).generate_state(1)[0])
        try:
            # so that a limit holds for an epoch of all sources
            size = max(1, round(shares[source] * length)) if options.get("cap") else None
            plans.append(build_sampler(name, targets[rows], own, size, **options))
        except UserError as error:
            raise UserError(f"source '{source_names[source]}': {error}") from error
        images.append(rows)
    return Sampler(name, length, partial(draw_mixed, plans, images, shares[drawn], seed))


def draw_mixed(
    plans: Sequence[Sampler],
    images: Sequence[np.ndarray],
    shares: np.ndarray,
    seed: int,
    start: int,
    stop: int,
) -> np.ndarray:
    """Draws [start, stop) of the sources' sequences, mixed by positive `shares` (S,).

    Returns positions among all images, int64. At the end of each block every source is within one
    draw of its share of all draws so far; within a block the order is random.
    """
    size = max(MIN_MIX_BLOCK, int(np.ceil(2 / shares.min())))
    blocks = max(1, BLOCK // size)
    # random numbers are generated for this many draws at a time
    first = start // (size * blocks) * (size * blocks)
    order = slice_blocks(
        partial(_order_sources, shares, size, blocks, seed), size * blocks, first, stop
    )
    positions = np.empty(len(order), dtype=np.int64)
    before = _count_by_source(shares, np.array([first]))[0]
    for source, (plan, rows) in enumerate(zip(plans, images, strict=True)):
        places = np.flatnonzero(order == source)
        begin = int(before[source])
        if len(places):
            positions[places] = rows[plan.draws(begin, begin + len(places))]
    return positions[start - first :]


def _order_sources(
    shares: np.ndarray, size: int, blocks: int, seed: int, number: int
) -> np.ndarray:
    """Source of each draw in stretch `number` of `blocks` blocks of `size` draws."""
    ends = np.arange(number * blocks, (number + 1) * blocks + 1) * size
    counts = np.diff(_count_by_source(shares, ends), axis=0)  # (blocks, S)
    sources = np.repeat(np.tile(np.arange(len(shares)), blocks), counts.ravel())
    random = np.random.default_rng((seed, 0, 0, number))
    return random.permuted(sources.reshape(blocks, size), axis=1).ravel()


def _count_by_source(shares: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Draws of each source among the first n draws, (D, S), for each n of `draws` (D,).

    Differences of rounded cumulative shares: within one draw of n times the share. They do not
    decrease from block to block if a block has at least two draws of each source.
    """
    borders = np.concatenate([[0.0], np.cumsum(shares)])
    borders[-1] = 1
    return np.diff(np.floor(np.outer(draws, borders) + 0.5).astype(np.int64), axis=1)
