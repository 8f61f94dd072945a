"""Draws of several sources by their weights, each with its own sampler."""

from typing import Any

import numpy as np
import pytest

from core.config.training import LoaderConfig
from core.data.loading.samplers import Sampler, build_mixture
from core.errors import UserError

NAMES = ("uniform", "class_aware", "repeat_factor")
SIZES = (700, 90, 210)
SOURCES = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], SIZES))
SHARES = np.array([0.3, 0.65, 0.05])


def targets_of(images: int = 1000) -> np.ndarray:
    """Two classes of 20 % and 5 %, of which a tenth is unknown."""
    random = np.random.default_rng(1)
    targets = (random.random((images, 2)) < [0.2, 0.05]).astype(np.float32)
    targets[random.random((images, 2)) < 0.1] = np.nan
    return targets


def mixture(name: str = "uniform", shares: Any = SHARES, size: int | None = None) -> Sampler:
    return build_mixture(name, targets_of(), 5, size, SOURCES, np.asarray(shares), ("a", "b", "c"))


def test_any_stretch_has_the_sources_shares() -> None:
    plan = mixture(size=40_000)(0)
    given = np.cumsum(SOURCES[plan, None] == np.arange(3), axis=0)
    wanted = np.arange(1, 40_001)[:, None] * SHARES
    # a block has 64 draws, and is right to one of them at its end
    assert np.abs(given - wanted)[63::64].max() <= 1
    assert np.abs(given - wanted).max() < 40
    # not one after the other: a source of .65 follows itself as often as in a random order
    turns = SOURCES[plan] == 1
    assert abs((turns[1:] & turns[:-1]).mean() - 0.65**2) < 0.02


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0), (1 / 3, 1 / 3, 1 / 3), (0.0001, 0.0002, 0.9997)])
def test_shares_of_any_size_are_kept(shares: tuple[float, ...]) -> None:
    plan = mixture(shares=shares, size=200_000)(0)
    counts = np.bincount(SOURCES[plan], minlength=3)
    # 200,000 draws end within a block of 20,000, which has two of the rarest source
    assert np.abs(counts - 200_000 * np.array(shares)).max() <= (3 if min(shares) else 20)
    assert counts[np.array(shares) == 0].sum() == 0


def test_class_aware_sampling_goes_by_the_classes_of_each_source() -> None:
    # the first source knows a class of one image, which the second does not know
    targets = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [np.nan, 1], [np.nan, 0]])
    sources = np.array([0, 0, 0, 0, 1, 1])
    plan = build_mixture("class_aware", targets, 0, 1200, sources, np.array([0.5, 0.5]), "ab")(0)
    # two classes in turn of the first; of the second the positives and the others
    expected = [300, 100, 100, 100, 300, 300]
    assert np.abs(np.bincount(plan) - expected).max() <= 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [63, 1000, 16_385])
def test_draws_depend_on_their_place_alone(name: str, size: int) -> None:
    whole = mixture(name, size=40_000)(0)
    draw = mixture(name, size=size)
    for epoch in (0, 1, 2):
        expected = whole[epoch * size : (epoch + 1) * size]
        assert np.array_equal(draw(epoch)[: len(expected)], expected)


def test_the_size_of_an_epoch_is_that_of_the_sources_drawn_from() -> None:
    assert mixture().epoch_size == 1000
    assert mixture(shares=(0.5, 0, 0.5)).epoch_size == 910
    assert mixture(size=77).epoch_size == 77


def test_a_source_without_positives_is_named() -> None:
    halves: tuple[Any, ...] = (np.array([0, 0, 1, 1]), np.array([0.5, 0.5]), "ab")
    with pytest.raises(UserError, match="source 'b': none of the 2 images to train on has a pos"):
        build_mixture("class_aware", np.array([[1], [0], [0], [0]]), 0, None, *halves)
    # the uniform sampler needs none, and gives every image before any comes again
    plan = build_mixture("uniform", np.zeros((4, 1)), 0, 64, *halves)
    assert np.bincount(plan(0)).tolist() == [16] * 4


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ((1.0,), "has one number: give one for each"),
        ((0.0, 0.0), "are all 0: give at least one above 0"),
    ],
)
def test_invalid_weights(weights: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LoaderConfig(source_weights=weights).check()
