"""Draws of several sources keep to their weights, and each source to its own sampler."""

from typing import Any

import numpy as np
import pytest

from core.config.training import LoaderConfig
from core.data.images.collection import Images
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData, describe_sampling
from core.data.loading.samplers import Sampler, build_mixture
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.runtime.fabric import make_fabric

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


def fold(
    weights: tuple[float, ...], sources: Any = (0, 0, 0, 1, 1, 1) * 2, **more: Any
) -> FoldData:
    """12 images of two sources, the last one to validate; none of the files exists."""
    targets = np.array([[1, np.nan], [0, np.nan], [0, np.nan], [np.nan, 1], [1, 0], [0, 0]] * 2)
    names = [f"{number}.png" for number in range(12)]
    table = LabelTable(
        ids=names,
        images=Images.of_files(names),
        targets=targets.astype(np.float32),
        class_names=("Mass", "Hernia"),
        sources=np.array(sources) if sources else None,
        source_names=("nih", "own") if sources else (),
    )
    rows = np.arange(12)
    settings = LoaderConfig(batch_size=2, num_workers=0, source_weights=weights, **more)
    augment = Augmentation([], seed=3)
    return FoldData(make_fabric(amp=False), 1, table, rows[:-1], rows[-1:], settings, 1, augment)


def test_a_weight_of_0_leaves_a_source_out_of_training() -> None:
    data = fold((1, 0))
    assert data.train_rows.tolist() == [0, 1, 2, 6, 7, 8]
    assert data.val_rows.tolist() == [11]
    positives, known = data.training_counts()
    assert (positives.tolist(), known.tolist()) == ([2, 0], [6, 0])
    assert describe_sampling(data).splitlines() == [
        "Sampler uniform, fold 1: an epoch makes 6 draws from 6 images.",
        "        images  drawn an epoch",
        "nih          6               6",
        "Not trained on, by its weight of 0: own.",
        "               positives  drawn an epoch",
        "Mass                   2               2",
        "(no positive)          4               4",
        "Left out, as no image here is positive: Hernia.",
    ]


def test_what_each_source_gives_is_said() -> None:
    data = fold((3, 1), epoch_size=6400)
    lines = describe_sampling(data).splitlines()
    assert lines[0] == "Sampler uniform, fold 1: an epoch makes 6,400 draws from 11 images."
    assert lines[2].split() == ["nih", "6", "4,800"]
    assert lines[3].split() == ["own", "5", "1,600"]
    # one in three of the first source, and two of five of the second; these two alone know Hernia
    assert lines[5].split()[:2] == ["Mass", "4"]
    assert abs(int(lines[5].split()[2].replace(",", "")) - (1600 + 640)) <= 4
    assert describe_sampling(fold(())) == ""


@pytest.mark.parametrize(
    ("weights", "more", "sentence"),
    [
        ((1, 1, 1), {}, "--source_weights gives 3 numbers for 2 --train_csv"),
        ((1, 1), {"sources": []}, "--source_weights gives 2 numbers for 1 --train_csv"),
        ((1, 1), {"sources": [0] * 12}, "fold 1: source 'own' has no image to train on"),
        ((1, 1e-5), {}, "gives source 'own' less than one draw in 10,000"),
    ],
)
def test_weights_that_do_not_fit_the_sources(
    weights: tuple[float, ...], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        fold(weights, **more)
    assert "\n" not in str(refused.value)


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
        ((0.0, 0.0), "are all 0: nothing would be left"),
    ],
)
def test_weights_that_are_none(weights: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LoaderConfig(source_weights=weights).check()
