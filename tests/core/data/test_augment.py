"""A sample's augmentation depends on (seed, epoch, index) alone, and looks as it is said to."""

import random
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest

from core.data.augment import Augmentation, light_transforms
from core.data.dataset import RadiographDataset, build_loader, unspoiled
from core.data.sampler import TrainingBatches
from core.data.table import LabelTable

SIZE = 32


def picture(seed: int = 0) -> np.ndarray:
    """A smooth grey picture without symmetry, uint8 (SIZE, SIZE), its grey levels in the middle."""
    noise = np.random.default_rng(seed).integers(70, 180, (6, 6)).astype(np.uint8)
    return cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def test_the_same_key_gives_the_same_pixels_in_any_order() -> None:
    image = picture()
    keys = [(epoch, index) for epoch in range(3) for index in range(10)]
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
        outcomes.append([augment(image, 0, index).tobytes() for index in range(10)])
        drawn.append((np.random.random(), random.random()))
    assert outcomes[0] == outcomes[1]
    # nor does it draw from them
    expected = np.random.RandomState(1).random_sample(), random.Random(1).random()
    assert drawn[1] == expected


@pytest.mark.parametrize("part", ["seed", "epoch", "index"])
def test_each_part_of_the_key_matters(part: str) -> None:
    # always three transforms with a continuous parameter each
    image = picture()

    def outcome(value: int) -> bytes:
        key = {"seed": 0, "epoch": 0, "index": 0} | {part: value}
        augment = Augmentation(light_transforms(affine_p=1, jitter_p=1), key["seed"])
        return augment(image, key["epoch"], key["index"]).tobytes()

    assert len({outcome(value) for value in range(30)}) == 30


def test_parts_of_the_key_do_not_stand_in_for_each_other() -> None:
    image = picture()
    augment = Augmentation(light_transforms(affine_p=1, jitter_p=1), seed=2)
    assert not np.array_equal(augment(image, 1, 2), augment(image, 2, 1))


def choices(transforms: list[A.BasicTransform], samples: int = 400) -> np.ndarray:
    """Whether each transform was applied: (samples, transforms), by a mark in its own pixel."""
    augment = Augmentation(transforms, seed=0)
    blank = np.zeros((1, len(transforms)), np.uint8)
    return np.stack([augment(blank, 0, index)[0] > 0 for index in range(samples)]).astype(float)


def mark(place: int) -> A.BasicTransform:
    """Sets pixel (0, place), half of the time."""

    def paint(image: np.ndarray, **_: object) -> np.ndarray:
        painted = image.copy()
        painted[0, place] = 255
        return painted

    return A.Lambda(image=paint, p=0.5)


def test_transforms_of_a_pipeline_are_independent() -> None:
    applied = choices([mark(place) for place in range(4)])
    # standard errors: .025 of a share, .05 of a correlation
    assert np.abs(applied.mean(axis=0) - 0.5).max() < 0.1
    correlation = np.corrcoef(applied.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.2


def test_mirror_and_brightness_are_independent() -> None:
    image = np.full((4, 4), 100, np.uint8)
    image[:, :2] = 80
    jitter = A.RandomBrightnessContrast(brightness_limit=0.08, contrast_limit=0, p=1, strict=True)
    augment = Augmentation([A.HorizontalFlip(p=0.5), jitter], seed=0)
    outcomes = [augment(image, 0, index) for index in range(400)]
    mirrored = np.array([out[0, 0] > out[0, 3] for out in outcomes], float)
    brightness = np.array([out.mean() for out in outcomes])
    assert 0.4 < mirrored.mean() < 0.6
    assert brightness.std() > 1
    assert abs(np.corrcoef(mirrored, brightness)[0, 1]) < 0.2


def test_samples_and_epochs_are_independent() -> None:
    image = np.tile(np.array([80, 120], np.uint8), (2, 1))
    augment = Augmentation([A.HorizontalFlip(p=0.5)], seed=0)
    mirrored = np.array(
        [[augment(image, epoch, i)[0, 0] > 100 for i in range(300)] for epoch in (0, 1)], float
    )
    assert abs(np.corrcoef(mirrored[0], mirrored[1])[0, 1]) < 0.2
    assert abs(np.corrcoef(mirrored[0, 1:], mirrored[0, :-1])[0, 1]) < 0.2


@pytest.mark.parametrize("shape", [(32, 32), (33, 47)])
def test_output_is_a_grey_image_of_the_same_size(shape: tuple[int, int]) -> None:
    augment = Augmentation(light_transforms(), seed=0)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    kept = image.copy()
    for index in range(40):
        out = augment(image, 0, index)
        assert out.dtype == np.uint8
        assert out.shape == shape
        assert out.flags.c_contiguous
        assert not np.shares_memory(out, image) or np.array_equal(out, image)
    assert np.array_equal(image, kept)


def test_half_of_the_images_are_mirrored_and_nothing_else_happens_at_probability_0() -> None:
    image = picture()
    augment = Augmentation(light_transforms(affine_p=0, jitter_p=0), seed=0)
    outcomes = [augment(image, 0, index) for index in range(200)]
    mirrored = [np.array_equal(out, image[:, ::-1]) for out in outcomes]
    straight = [np.array_equal(out, image) for out in outcomes]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 70 < sum(mirrored) < 130


def test_jitter_stays_within_its_part_of_the_grey_range() -> None:
    image = np.full((8, 8), 128, np.uint8)
    augment = Augmentation(light_transforms(affine_p=0, jitter=0.08, jitter_p=1), seed=0)
    levels = np.array([augment(image, 0, index).mean() for index in range(200)])
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
    for index in range(100):
        out = augment(image, 0, index).astype(float)
        y, x = (np.average(grid, weights=out) for grid in np.indices(out.shape))
        moves.append((y - 50, x - 50))
    # the dot is in the centre, where rotation and scale do not move it
    assert np.abs(moves).max() <= 0.1 * side + 1
    assert np.abs(moves).max(axis=0).min() > 0.05 * side


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), picture(number))
    table = LabelTable(
        ids=names,
        paths=[str(tmp_path / name) for name in names],
        patients=None,
        studies=None,
        views=None,
        targets=np.eye(9, 2, dtype=np.float32),
        class_names=("A", "B"),
        notes=(),
    )
    rows = np.array([8, 1, 2, 3, 4, 5, 7])

    def read(workers: int) -> list[tuple[np.ndarray, np.ndarray]]:
        batches = TrainingBatches(
            images=7, batch_size=2, batches_per_epoch=3, seed=4, first_epoch=0, last_epoch=2
        )
        dataset = RadiographDataset(
            table, rows, SIZE, Augmentation(light_transforms(affine_p=1, jitter_p=1), seed=4)
        )
        loader = build_loader(dataset, batches, workers, pin_memory=False, persistent=False)
        return [(batch.images.numpy(), batch.rows.numpy()) for batch in unspoiled(loader)]

    alone = read(0)
    assert len(alone) == 6
    # keyed by the row in the table, and not by the place in a batch or a fold
    by_hand = Augmentation(light_transforms(affine_p=1, jitter_p=1), seed=4)
    for step, (images, numbers) in enumerate(alone):
        for image, row in zip(images, numbers, strict=True):
            assert np.array_equal(image[0], by_hand(picture(int(row)), step // 3, int(row)))
    for workers in (1, 2):
        for (images, numbers), (expected, order) in zip(read(workers), alone, strict=True):
            assert np.array_equal(numbers, order)
            assert np.array_equal(images, expected)
