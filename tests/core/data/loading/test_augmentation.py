"""A sample's augmentation depends on (seed, epoch, place) alone, and looks as it is said to."""

import random
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from core.data.images.collection import Images
from core.data.loading.augmentation import Augmentation, light_transforms
from core.data.loading.dataset import Batch, RadiographDataset, decoding_loader, unspoiled
from core.data.loading.samplers import TrainingBatches
from core.data.tables.label_table import LabelTable

SIZE = 32


def picture(seed: int = 0) -> np.ndarray:
    """A smooth grey picture without symmetry, uint8 (SIZE, SIZE), its grey levels in the middle."""
    noise = np.random.default_rng(seed).integers(70, 180, (6, 6)).astype(np.uint8)
    return cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def test_the_same_key_gives_the_same_pixels_in_any_order() -> None:
    image = picture()
    keys = [(epoch, place) for epoch in range(3) for place in range(10)]
    first = Augmentation(light_transforms(), seed=1)
    there = {key: first(image, *key) for key in keys}
    again = {key: first(image, *key) for key in reversed(keys)}
    fresh = Augmentation(light_transforms(), seed=1)
    for key in keys:
        assert np.array_equal(there[key], again[key])
        assert np.array_equal(there[key], fresh(image, *key))


def test_global_random_numbers_have_no_part_in_it() -> None:
    augment, image = Augmentation(light_transforms(), seed=1), picture()
    outcomes, drawn = [], []
    for seed in (0, 1):
        np.random.seed(seed)
        random.seed(seed)
        outcomes.append([augment(image, 0, place).tobytes() for place in range(10)])
        drawn.append((np.random.random(), random.random()))
    assert outcomes[0] == outcomes[1]
    # nor does it draw from them
    expected = np.random.RandomState(1).random_sample(), random.Random(1).random()
    assert drawn[1] == expected


@pytest.mark.parametrize("part", ["seed", "epoch", "place"])
def test_each_part_of_the_key_matters(part: str) -> None:
    # always three transforms with a continuous parameter each
    image = picture()

    def outcome(value: int) -> bytes:
        key = {"seed": 0, "epoch": 0, "place": 0} | {part: value}
        augment = Augmentation(light_transforms(affine_p=1, jitter_p=1), key["seed"])
        return augment(image, key["epoch"], key["place"]).tobytes()

    assert len({outcome(value) for value in range(30)}) == 30


def test_parts_of_the_key_do_not_stand_in_for_each_other() -> None:
    augment = always()
    assert not np.array_equal(augment(picture(), 1, 2), augment(picture(), 2, 1))


def mark(place: int) -> A.BasicTransform:
    """Sets pixel (0, place), half of the time."""

    def paint(image: np.ndarray, **_: object) -> np.ndarray:
        painted = image.copy()
        painted[0, place] = 255
        return painted

    return A.Lambda(image=paint, p=0.5)


def test_transforms_samples_and_epochs_are_independent() -> None:
    augment, blank = Augmentation([mark(place) for place in range(4)], 0), np.zeros((1, 4), "u1")
    applied = np.stack([augment(blank, 0, place)[0] > 0 for place in range(400)]).astype(float)
    # standard errors: .025 of a share, .05 of a correlation
    assert np.abs(applied.mean(axis=0) - 0.5).max() < 0.1
    other = np.stack([augment(blank, 1, place)[0] > 0 for place in range(400)]).astype(float)
    # of each place, the place after it, and the other epoch
    columns = np.hstack([applied[:-1], applied[1:], other[:-1]])
    correlation = np.corrcoef(columns.T) - np.eye(12)
    assert np.abs(correlation).max() < 0.25


@pytest.mark.parametrize("shape", [(32, 32), (33, 47)])
def test_output_is_a_grey_image_of_the_same_size(shape: tuple[int, int]) -> None:
    augment = Augmentation(light_transforms(), seed=0)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    kept = image.copy()
    for place in range(40):
        out = augment(image, 0, place)
        assert out.dtype == np.uint8
        assert out.shape == shape
        assert out.flags.c_contiguous
        assert not np.shares_memory(out, image) or np.array_equal(out, image)
    assert np.array_equal(image, kept)


def test_half_of_the_images_are_mirrored_and_nothing_else_happens_at_probability_0() -> None:
    image = picture()
    augment = Augmentation(light_transforms(affine_p=0, jitter_p=0), seed=0)
    outcomes = [augment(image, 0, place) for place in range(200)]
    mirrored = [np.array_equal(out, image[:, ::-1]) for out in outcomes]
    straight = [np.array_equal(out, image) for out in outcomes]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 70 < sum(mirrored) < 130


def test_jitter_stays_within_its_part_of_the_grey_range() -> None:
    image = np.full((8, 8), 128, np.uint8)
    augment = Augmentation(light_transforms(affine_p=0, jitter=0.08, jitter_p=1), seed=0)
    levels = np.array([augment(image, 0, place).mean() for place in range(200)])
    # brightness shifts by up to .08 of the range, contrast scales by up to .08
    assert np.abs(levels - 128).max() <= 0.08 * 255 + 0.08 * 128 + 1
    assert levels.min() < 118
    assert levels.max() > 138


def test_the_affine_part_moves_a_dot_no_further_than_it_may() -> None:
    side = 101
    image = np.zeros((side, side), np.uint8)
    image[48:53, 48:53] = 255
    augment = Augmentation(light_transforms(shift=0.1, affine_p=1, jitter_p=0), seed=0)
    moves = []
    for place in range(100):
        out = augment(image, 0, place).astype(float)
        y, x = (np.average(grid, weights=out) for grid in np.indices(out.shape))
        moves.append((y - 50, x - 50))
    # the dot is in the centre, where rotation and scale do not move it
    assert np.abs(moves).max() <= 0.1 * side + 1
    assert np.abs(moves).max(axis=0).min() > 0.05 * side


@pytest.fixture
def table(tmp_path: Path) -> LabelTable:
    """Nine images; image k is picture(k)."""
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), picture(number))
    return LabelTable(
        ids=names,
        images=Images.below(tmp_path, names),
        targets=np.eye(9, 2, dtype=np.float32),
        class_names=("A", "B"),
    )


def always() -> Augmentation:
    """Changes every image by a continuous parameter."""
    return Augmentation(light_transforms(affine_p=1, jitter_p=1), seed=4)


def repeating(epoch: int) -> np.ndarray:
    """A plan of 13 draws from 7 images, of which some come again and again."""
    plans = [0, 1, 6, 6, 2, 0, 6, 3, 0, 4, 5, 6, 1], [3, 3, 3, 3, 3, 3, 2, 1, 0, 0, 6, 5, 4]
    return np.array(plans[epoch])


def read(table: LabelTable, workers: int, world_size: int = 1) -> list[Batch]:
    """What each process reads of two epochs of 3 global batches of 4, one after another."""
    rows = np.array([8, 1, 2, 3, 4, 5, 7])
    read = []
    for rank in range(world_size):
        batches = TrainingBatches(
            plan=repeating,
            batch_size=4 // world_size,
            batches_per_epoch=3,
            first_epoch=0,
            last_epoch=2,
            rank=rank,
            world_size=world_size,
        )
        dataset = RadiographDataset(table, rows, SIZE, always())
        loader = decoding_loader(dataset, batches, workers)
        read.append(list(unspoiled(loader)))
    return [
        Batch(*(torch.cat(parts) for parts in zip(*ranks, strict=True)))
        for ranks in zip(*read, strict=True)
    ]


def test_the_number_of_workers_and_processes_changes_nothing(table: LabelTable) -> None:
    alone = read(table, 0)
    # 13 draws make three batches of 4
    assert len(alone) == 6
    for workers, world_size in ((1, 1), (2, 1), (0, 2), (0, 4), (2, 2)):
        others = read(table, workers, world_size)
        assert len(others) == 6
        for batch, expected in zip(others, alone, strict=True):
            for ours, theirs in zip(batch, expected, strict=True):
                assert ours is not None
                assert theirs is not None
                assert torch.equal(ours, theirs)


def test_each_draw_of_an_image_is_augmented_by_its_place_in_the_plan(table: LabelTable) -> None:
    by_hand = always()
    seen: dict[int, list[bytes]] = {}
    for step, (images, _, rows, _) in enumerate(read(table, 0)):
        for number, (image, row) in enumerate(zip(images.numpy(), rows.tolist(), strict=True)):
            epoch, place = step // 3, step % 3 * 4 + number
            assert row == [8, 1, 2, 3, 4, 5, 7][repeating(epoch)[place]]
            assert np.array_equal(image[0], by_hand(picture(row), epoch, place))
            seen.setdefault(row, []).append(image.tobytes())
    # row 3 comes once in the first epoch and six times in the second
    assert len(seen[3]) == 7
    for outcomes in seen.values():
        assert len(set(outcomes)) == len(outcomes)
