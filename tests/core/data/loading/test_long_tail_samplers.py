"""class_aware and repeat_factor samplers by their definitions, on small and real data."""

import math
from collections import Counter

import numpy as np
import pytest

from core.data.loading.samplers import build_sampler
from core.errors import UserError


def plans(name: str, targets: np.ndarray, epochs: int, size: int | None = None) -> np.ndarray:
    """Plans of the first `epochs` epochs, (epochs, draws)."""
    draw = build_sampler(name, targets, seed=4, epoch_size=size)
    return np.stack([draw(epoch) for epoch in range(epochs)])


def one_class_each(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Each image's only class in a random order, (N,), and the targets (N, C)."""
    owner = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return owner, np.eye(len(sizes), dtype=np.float32)[owner]


@pytest.mark.parametrize("size", [None, 3, 333])
def test_class_aware_gives_classes_and_images_their_turns(size: int | None) -> None:
    """No class has its second turn before all have had one, nor an image before all of its class.

    The definition draw by draw, where each image has one class.
    """
    # a single image, fewer than an epoch's turns, more than several epochs'
    owner, targets = one_class_each([1, 2, 9, 150])
    due: set[int] = set()
    left: dict[int, set[int]] = {c: set() for c in range(4)}
    for image in plans("class_aware", targets, 40, size).ravel().tolist():
        due = due or set(range(4))
        c = int(owner[image])
        # raises KeyError where it is not their turn
        due.remove(c)
        left[c] = left[c] or set(np.flatnonzero(owner == c).tolist())
        left[c].remove(image)


def test_each_cycle_has_its_own_order() -> None:
    owner, targets = one_class_each([4, 4, 4])
    draws = plans("class_aware", targets, 10, 2400)
    first, second = (draws[owner[draws] == c] for c in (0, 1))
    # orders of the classes in 8,000 cycles, of the images in 2,000 shuffles of a class, and images
    # that two classes give together: each is as frequent as others, within 5 standard deviations
    for found, kinds in (
        (owner[draws].reshape(-1, 3), 6),
        (first.reshape(-1, 4), 24),
        (np.stack([first, second], axis=1), 16),
    ):
        counts = np.array([*Counter(map(tuple, found.tolist())).values()])
        assert len(counts) == kinds
        expected = len(found) / kinds
        assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_an_image_of_several_classes_is_drawn_for_each() -> None:
    # columns of 2, 3 and 4 positives; the last class is unknown, and image 6 has no positive
    nan = np.nan
    targets = np.array(
        [
            [1, 1, 1, nan],
            [1, 0, 0, nan],
            [0, 1, nan, nan],
            [nan, 1, 1, 0],
            [0, 0, 1, nan],
            [0, nan, 1, 0],
            [0, nan, 0, nan],
        ]
    )
    # 12 cycles of 4: a class of n images draws each 12 / n times, the image without positives 12
    (plan,) = plans("class_aware", targets, 1, 4 * 12)
    drawn = np.bincount(plan, minlength=7).tolist()
    assert drawn == [6 + 4 + 3, 6, 4, 4 + 3, 3, 3, 12]
    assert (targets[plan] == 1).sum(axis=0).tolist() == [19, 24, 26, 0]


def test_images_without_positives_are_a_class_only_where_there_are_any() -> None:
    targets = np.eye(3)[[0, 0, 1]]
    (plan,) = plans("class_aware", targets, 1, 100)
    assert np.bincount(plan).tolist() == [25, 25, 50]
    # one of which nothing is known is not drawn
    (plan,) = plans("class_aware", np.concatenate([targets, [[0, 0, 0], [np.nan] * 3]]), 1, 90)
    assert np.bincount(plan).tolist() == [15, 15, 30, 30]


@pytest.mark.parametrize("name", ["class_aware", "repeat_factor"])
@pytest.mark.parametrize("label", [0, np.nan])
def test_without_a_positive_label_there_is_nothing_to_go_by(name: str, label: float) -> None:
    with pytest.raises(
        UserError, match=f"none of the 50 .* positive .*--sampler {name}.*--sampler uniform"
    ):
        build_sampler(name, np.full((50, 3), label), seed=0)


def rare_labels() -> np.ndarray:
    """1,000 images; of the first ten, image k has FACTORS[k], and another has 1.

    sqrt(.01 n) draws of a single positive among n known labels, sqrt(.01 n / 4) of each of 4.
    """
    targets = np.full((1000, 8), np.nan)
    for c, known in enumerate((400, 900, 225, 225, 225, 225)):
        targets[:known, c] = 0
        targets[c, c] = 1
    targets[:625, 6] = 0
    targets[6:10, 6] = 1
    # a common label changes nothing
    targets[:100, 7] = 1
    return targets


FACTORS = [2, 3, *[1.5] * 4, *[1.25] * 4]


def test_whole_factors_are_drawn_exactly_and_others_rounded_by_chance() -> None:
    draws = plans("repeat_factor", rare_labels(), 3000)
    assert draws.shape[1] == 1000 + 1 + 2 + 4 * 0.5 + 4 * 0.25
    counts = np.stack([np.bincount(plan, minlength=1000) for plan in draws])
    for image, factor in enumerate(FACTORS):
        low, high = counts[:, image].min(), counts[:, image].max()
        assert (low, high) == (math.floor(factor), math.ceil(factor))
        # standard deviation .009
        assert abs(counts[:, image].mean() - factor) < 0.035
    assert (counts[:, 10:] == 1).all()
    # three of eight images are rounded up: by chance, and not always the same ones together
    up = counts[:, 2:10] > [math.floor(factor) for factor in FACTORS[2:]]
    assert (up.sum(axis=1) == 3).all()
    together = up.T.astype(int) @ up
    assert together.min() > 0.02 * 3000


def test_a_factor_has_an_end_at_10_and_its_draws_are_shuffled() -> None:
    (plan,) = plans("repeat_factor", np.eye(1, 30_000, 7).T, 1)
    assert np.bincount(plan).tolist() == [10 if image == 7 else 1 for image in range(30_000)]
    # side by side they would be 1 apart, and are 3,000 on average
    assert np.diff(np.flatnonzero(plan == 7)).mean() > 500


def test_repeat_factor_draws_as_expected_on_a_long_tail() -> None:
    """20,000 images with 10 classes of 30 % to .1 %, a fifth of the labels unknown."""
    random = np.random.default_rng(2)
    targets = (random.random((20_000, 10)) < np.geomspace(0.3, 0.001, 10)).astype(np.float32)
    targets[random.random(targets.shape) < 0.2] = np.nan
    # r_i of each image, entry by entry as Gupta 2019 has it, with t .01
    known, positive = (~np.isnan(targets)).sum(axis=0), targets == 1
    of_class = np.maximum(1, np.sqrt(0.01 * known / positive.sum(axis=0)))
    factors = np.array([max([1, *np.compress(row, of_class)]) for row in positive])
    draws = plans("repeat_factor", targets, epochs=40)
    assert draws.shape[1] == math.floor(math.fsum(factors))
    drawn = np.stack([np.bincount(plan, minlength=len(targets)) for plan in draws])
    assert (drawn >= np.floor(factors)).all()
    assert (drawn <= np.ceil(factors)).all()
    counts = drawn.mean(axis=0)
    # each class's positives are drawn within 1 % of the sum of their r_i
    assert np.abs(counts @ positive / (factors @ positive) - 1).max() < 0.01
    effective = np.mean([(targets[plan] == 1).sum(axis=0) for plan in draws], axis=0)
    assert effective == pytest.approx(counts @ positive)
    # the tail is repeated at all
    assert counts[positive[:, positive.sum(axis=0).argmin()]].mean() > 2
