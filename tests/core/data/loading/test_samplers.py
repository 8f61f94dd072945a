"""Batches by seed and epoch, independent of processes and workers."""

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from core.config.training import LoaderConfig
from core.data.loading.batches import evaluation_batches, training_batches
from core.data.loading.samplers import build_sampler

Batches = list[list[tuple[int, int, int]]]
IMAGES = 103
NAMES = get_args(get_type_hints(LoaderConfig)["sampler"])


def targets_of(images: int) -> np.ndarray:
    """A long tail of 5 classes with unknown labels, several positives an image, and none."""
    random = np.random.default_rng(0)
    targets = (random.random((images, 5)) < [0.5, 0.2, 0.1, 0.05, 0.0]).astype(np.float32)
    targets[random.random((images, 5)) < 0.2] = np.nan
    # prevalence below .01
    targets[0, 4] = 1
    return targets


def training(world_size: int, sampler: str = "uniform", **options: Any) -> list[Batches]:
    """The batches of each rank: 103 images in global batches of 12, by default."""
    settings: dict[str, Any] = {
        "plan": build_sampler(sampler, targets_of(IMAGES), seed=5),
        "batch_size": 12 // world_size,
        "batches_per_epoch": IMAGES // 12,
        "epochs": range(3),
    } | options
    ranks = range(world_size)
    return [[*training_batches(**settings, rank=rank, world_size=world_size)] for rank in ranks]


@pytest.mark.parametrize("sampler", NAMES)
@pytest.mark.parametrize("world_size", [1, 3])
def test_global_batches_are_the_plan_in_order(sampler: str, world_size: int) -> None:
    ranks = training(world_size, sampler)
    assert [len(batches) for batches in ranks] == [24] * world_size
    assert {len(batch) for batches in ranks for batch in batches} == {12 // world_size}
    # each rank's slice after the other
    batches = [[sample for part in parts for sample in part] for parts in zip(*ranks, strict=True)]
    for epoch in range(3):
        plan = build_sampler(sampler, targets_of(IMAGES), seed=5)(epoch)
        for number in range(8):
            places = range(12 * number, 12 * (number + 1))
            expected = [(epoch, place, int(plan[place])) for place in places]
            assert batches[8 * epoch + number] == expected


@pytest.mark.parametrize("world_size", [1, 4])
def test_a_start_anywhere_is_the_tail(world_size: int) -> None:
    whole = training(world_size)
    for epoch, skip in [(0, 0), (0, 7), (0, 8), (1, 0), (2, 5)]:
        tails = training(world_size, epochs=range(epoch, 3), skip=skip)
        assert tails == [batches[8 * epoch + skip :] for batches in whole]


@pytest.mark.parametrize("sampler", NAMES)
def test_a_plan_depends_on_seed_and_epoch_alone(sampler: str) -> None:
    targets = targets_of(20_000)
    draw = build_sampler(sampler, targets, seed=3)
    plan = draw(7)
    assert plan.dtype == np.int64
    np.random.seed(0)
    # no draw before it has a part in it
    for epoch in (0, 9, 6, 7):
        again = draw(epoch)
    assert np.array_equal(again, plan)
    assert np.array_equal(build_sampler(sampler, targets, seed=3)(7), plan)
    # a random pair agrees in few places: class 4 has one image, due at one place in six of both
    for seed, epoch in ((3, 8), (4, 7), (4, 6), (7, 3)):
        other = build_sampler(sampler, targets, seed)(epoch)
        assert (other == plan).mean() < 0.06
    assert abs(np.corrcoef(plan, np.arange(len(plan)))[0, 1]) < 0.15


@pytest.mark.parametrize("sampler", NAMES)
@pytest.mark.parametrize("size", [40, 103, 250])
def test_epochs_of_any_size_are_one_sequence(sampler: str, size: int) -> None:
    """Parts of an epoch of another size: what one epoch leaves, the next one takes."""
    targets = targets_of(IMAGES)
    draw = build_sampler(sampler, targets, seed=1, epoch_size=size)
    plans = [draw(epoch) for epoch in range(min(2000 // size, 300))]
    assert {len(plan) for plan in plans} == {draw.epoch_size} == {size}
    whole = build_sampler(sampler, targets, seed=1, epoch_size=2000)(0)
    assert np.array_equal(np.concatenate(plans), whole[: len(plans) * size])


def test_uniform_gives_every_image_before_any_comes_again() -> None:
    for targets in (targets_of(IMAGES), np.zeros((IMAGES, 3)), np.full((IMAGES, 3), np.nan)):
        draws = build_sampler("uniform", targets, seed=1, epoch_size=10 * IMAGES)(0)
        rounds = draws.reshape(10, IMAGES)
        assert (np.sort(rounds, axis=1) == np.arange(IMAGES)).all()
        assert not np.array_equal(rounds[0], rounds[1])


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 8, 23, 24, 25])
def test_evaluation_covers_each_image_once(images: int, world_size: int) -> None:
    read = [evaluation_batches(images, 4, rank, world_size) for rank in range(world_size)]
    # equally many full batches, and no more than it takes to fill the last global one
    positions = np.array(read)[..., -1].ravel()
    assert np.array(read).shape[2] == 4
    assert sorted(positions[positions >= 0]) == list(range(images))
    assert (positions < 0).sum() == (positions == -1).sum() == -images % (4 * world_size)
