"""Augmentation: a function of (seed, epoch, place), with the documented transforms."""

import random
from functools import partial
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from core.data.images.collection import Images
from core.data.loading.augmentation import Augmentation, light_transforms
from core.data.loading.batches import training_batches
from core.data.loading.dataset import Batch, RadiographDataset, decoding_loader
from core.data.tables.label_table import LabelTable

SIZE = 32
ROWS = [8, 1, 2, 3, 4, 5, 7]


def picture(seed: int = 0) -> np.ndarray:
    """A smooth grey picture without symmetry, uint8 (SIZE, SIZE), its grey levels in the middle."""
    noise = np.random.default_rng(seed).integers(70, 180, (6, 6)).astype(np.uint8)
    return cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def always(seed: int = 4) -> Augmentation:
    """Changes every image by a continuous parameter."""
    return Augmentation(light_transforms(affine_p=1, jitter_p=1), seed)


def test_the_key_alone_decides_and_global_random_numbers_have_no_part_in_it() -> None:
    keys = {(seed, 0, 0) for seed in range(30)} | {(0, epoch, 0) for epoch in range(30)}
    keys |= {(0, 0, place) for place in range(30)} | {(0, 1, 2), (0, 2, 1)}
    outcomes = []
    for seed, order in ((0, 1), (1, -1)):
        np.random.seed(seed)
        random.seed(seed)
        outcomes.append(
            {key: always(key[0])(picture(), *key[1:]).tobytes() for key in sorted(keys)[::order]}
        )
        # nor does it draw from them
        drawn = np.random.random(), random.random()
        assert drawn == (np.random.RandomState(seed).random_sample(), random.Random(seed).random())
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0].values())) == len(keys)


def test_transforms_samples_and_epochs_are_independent() -> None:
    def mark(place: int) -> A.BasicTransform:
        pixel = 255 * np.eye(1, 4, place, dtype=np.uint8)
        return A.Lambda(image=partial(lambda mask, image, **_: image | mask, pixel), p=0.5)

    augment, blank = Augmentation([mark(place) for place in range(4)], 0), np.zeros((1, 4), "u1")
    applied, other = (
        np.stack([augment(blank, epoch, place)[0] > 0 for place in range(400)]).astype(float)
        for epoch in (0, 1)
    )
    # standard errors: .025 of a share, .05 of a correlation
    assert np.abs(applied.mean(axis=0) - 0.5).max() < 0.1
    # of each place, the place after it, and the other epoch
    columns = np.hstack([applied[:-1], applied[1:], other[:-1]])
    assert np.abs(np.corrcoef(columns.T) - np.eye(12)).max() < 0.25


@pytest.mark.parametrize("shape", [(32, 32), (33, 47)])
def test_output_is_a_grey_image_of_the_same_size(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    kept = image.copy()
    for place in range(40):
        out = Augmentation(light_transforms(), seed=0)(image, 0, place)
        assert (out.dtype, out.shape, out.flags.c_contiguous) == (np.uint8, shape, True)
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


@pytest.fixture
def table(tmp_path: Path) -> LabelTable:
    """Nine images; image k is picture(k)."""
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), picture(number))
    images, targets = Images.in_folder(tmp_path, names), np.eye(9, 2, dtype=np.float32)
    return LabelTable(ids=names, images=images, targets=targets, class_names=("A", "B"))


def repeating(epoch: int) -> np.ndarray:
    """Plan of 13 draws from 7 images, with repetitions."""
    plans = [0, 1, 6, 6, 2, 0, 6, 3, 0, 4, 5, 6, 1], [3, 3, 3, 3, 3, 3, 2, 1, 0, 0, 6, 5, 4]
    return np.array(plans[epoch])


def read(table: LabelTable, workers: int, world_size: int = 1) -> list[Batch]:
    """Samples of each process in two epochs of 3 global batches of 4."""
    read = []
    for rank in range(world_size):
        batches = training_batches(repeating, 4 // world_size, 3, range(2), 0, rank, world_size)
        dataset = RadiographDataset(table, np.array(ROWS), SIZE, always())
        read.append(list(decoding_loader(dataset, batches, workers)))
    return [
        Batch(*(torch.cat(parts) for parts in zip(*ranks, strict=True)))
        for ranks in zip(*read, strict=True)
    ]


def test_the_number_of_workers_and_processes_changes_nothing(table: LabelTable) -> None:
    alone = read(table, 0)
    # 13 draws make three batches of 4
    assert len(alone) == 6
    for workers, world_size in ((1, 1), (0, 4), (2, 2)):
        for batch, expected in zip(read(table, workers, world_size), alone, strict=True):
            for ours, theirs in zip(batch, expected, strict=True):
                assert ours is not None
                assert theirs is not None
                assert torch.equal(ours, theirs)


def test_each_draw_of_an_image_is_augmented_by_its_place_in_the_plan(table: LabelTable) -> None:
    seen: dict[int, list[bytes]] = {}
    for step, (images, _, rows, *_) in enumerate(read(table, 0)):
        for number, (image, row) in enumerate(zip(images.numpy(), rows.tolist(), strict=True)):
            epoch, place = step // 3, step % 3 * 4 + number
            assert row == ROWS[repeating(epoch)[place]]
            assert np.array_equal(image[0], always()(picture(row), epoch, place))
            seen.setdefault(row, []).append(image.tobytes())
    # row 3 comes once in the first epoch and six times in the second
    assert len(seen[3]) == 7
    for outcomes in seen.values():
        assert len(set(outcomes)) == len(outcomes)
