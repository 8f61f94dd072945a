"""Every image once, in an order that seed and epoch alone decide, however many processes."""

import numpy as np
import pytest

from core.data.sampler import EvaluationBatches, TrainingBatches, uniform_plan

Batches = list[list[tuple[int, int]]]


def training(world_size: int, **options: int) -> list[Batches]:
    """The batches of each rank: 103 images in global batches of 12, unless said otherwise."""
    settings = {
        "images": 103,
        "batch_size": 12 // world_size,
        "batches_per_epoch": 103 // 12,
        "seed": 5,
        "first_epoch": 0,
        "last_epoch": 3,
    } | options
    return [
        list(TrainingBatches(**settings, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]


def joined(ranks: list[Batches]) -> Batches:
    """The global batches: each rank's slice after the other."""
    return [[sample for part in parts for sample in part] for parts in zip(*ranks, strict=True)]


def test_plan_is_a_shuffle_by_seed_and_epoch_alone() -> None:
    plan = uniform_plan(1000, 3, 7)
    assert sorted(plan.tolist()) == list(range(1000))
    np.random.seed(0)
    assert np.array_equal(uniform_plan(1000, 3, 7), plan)
    for other in (uniform_plan(1000, *key) for key in ((3, 8), (4, 7), (4, 6), (7, 3))):
        # a random pair of shuffles agrees in one place on average
        assert (other == plan).sum() < 10
    assert abs(np.corrcoef(plan, np.arange(1000))[0, 1]) < 0.15


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_global_batches_are_the_plan_in_order(world_size: int) -> None:
    batches = joined(training(world_size))
    for epoch in range(3):
        plan = uniform_plan(103, 5, epoch)
        for number in range(8):
            expected = [(epoch, int(p)) for p in plan[12 * number : 12 * (number + 1)]]
            assert batches[8 * epoch + number] == expected


@pytest.mark.parametrize("world_size", [2, 3, 4, 6])
def test_any_number_of_processes_sees_the_same_steps(world_size: int) -> None:
    assert joined(training(world_size)) == joined(training(1))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_image_is_there_at_most_once_an_epoch(world_size: int) -> None:
    ranks = training(world_size)
    # 8 whole global batches of 12; the 7 images over are dropped
    assert [len(batches) for batches in ranks] == [24] * world_size
    assert {len(batch) for batches in ranks for batch in batches} == {12 // world_size}
    for epoch in range(3):
        seen = [p for batches in ranks for batch in batches for e, p in batch if e == epoch]
        assert len(seen) == len(set(seen)) == 96


def test_different_images_are_dropped_in_different_epochs() -> None:
    (batches,) = training(1, last_epoch=40)
    assert {position for batch in batches for _, position in batch} == set(range(103))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("epoch", "skip"), [(0, 0), (0, 1), (0, 7), (0, 8), (1, 0), (2, 5)])
def test_a_start_anywhere_is_the_tail(world_size: int, epoch: int, skip: int) -> None:
    whole = training(world_size)
    tails = training(world_size, first_epoch=epoch, skip=skip)
    for rank in range(world_size):
        assert tails[rank] == whole[rank][8 * epoch + skip :]


def test_length_is_the_number_of_batches() -> None:
    options = {"batches_per_epoch": 4, "seed": 0, "first_epoch": 1, "last_epoch": 4, "skip": 3}
    batches = TrainingBatches(images=20, batch_size=5, **options)
    assert len(batches) == len(list(batches)) == 9
    assert list(batches) == list(batches)


def test_an_accumulating_epoch_drops_whole_updates() -> None:
    # 103 images in updates of 4 batches of 6: 4 updates, 16 batches, 7 images over
    (batches,) = training(1, batch_size=6, batches_per_epoch=103 // 24 * 4, last_epoch=1)
    assert len(batches) == 16
    assert [sample for batch in batches for sample in batch] == [
        (0, int(p)) for p in uniform_plan(103, 5, 0)[:96]
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 7, 8, 16, 23, 24, 25])
def test_evaluation_covers_each_image_once(images: int, world_size: int) -> None:
    ranks = [
        EvaluationBatches(images, batch_size=4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    read = [list(batches) for batches in ranks]
    assert [len(batches) for batches in read] == [len(batches) for batches in ranks]
    assert all(len(batch) == 4 for batches in read for batch in batches)
    positions = [position for batches in read for batch in batches for _, position in batch]
    assert sorted(p for p in positions if p >= 0) == list(range(images))
    padding = [p for p in positions if p < 0]
    assert set(padding) <= {-1}
    # no more than it takes to fill the last global batch
    assert len(padding) == -images % (4 * world_size)
