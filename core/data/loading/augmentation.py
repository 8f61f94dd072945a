"""Albumentations pipelines for grey uint8 images, with one random stream per sample."""

import os
import random

# otherwise the import waits for a version check over the network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np


def light_transforms(affine_p: float = 0.5, jitter_p: float = 0.2) -> list[A.BasicTransform]:
    """Mirror (p 0.5), affine (3 % shift, 5 % scale, 7 degrees) and 8 % brightness/contrast."""
    return [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            translate_percent=(-0.03, 0.03),
            scale=(0.95, 1.05),
            rotate=(-7.0, 7.0),
            p=affine_p,
            strict=True,
        ),
        _jitter(0.08, jitter_p),
    ]


def _jitter(limit: float, p: float) -> A.BasicTransform:
    return A.RandomBrightnessContrast(
        brightness_limit=limit, contrast_limit=limit, p=p, strict=True
    )


def strong_transforms(size: int) -> list[A.BasicTransform]:
    """Mirror, affine, CLAHE, brightness/contrast, noise and dropout of squares, for `size` pixels.

    Used by csra_db_cas. The 6 squares have 24 pixels a side at 512, scaled for other sizes.
    """
    mirror, affine, jitter = light_transforms(affine_p=0.4)
    side = max(1, round(24 * size / 512))
    return [
        mirror,
        affine,
        A.CLAHE(clip_limit=(2.0, 2.0), tile_grid_size=(8, 8), p=0.2, strict=True),
        jitter,
        # fractions of the grey range
        A.GaussNoise(std_range=(1 / 255, 5 / 255), p=0.15, strict=True),
        A.CoarseDropout(
            num_holes_range=(6, 6),
            hole_height_range=(side, side),
            hole_width_range=(side, side),
            fill=0,
            p=0.15,
            strict=True,
        ),
    ]


def crop_transforms(size: int, *, rotation: float, jitter: bool) -> list[A.BasicTransform]:
    """Random crop (84 to 100 % of the area) to `size` pixels, mirror, rotation and jitter.

    Used by label_coupling. `rotation` is the maximum in degrees; `jitter` adds 5 % of brightness
    and contrast.
    """
    transforms: list[A.BasicTransform] = [
        A.RandomResizedCrop(size=(size, size), scale=(0.84, 1.0), strict=True),
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=(-rotation, rotation), p=0.5, strict=True),
    ]
    return [*transforms, _jitter(0.05, 0.5)] if jitter else transforms


class Augmentation:
    """Transforms seeded by (seed, epoch, place in the epoch's global plan).

    The result is the same for any number of workers and processes, needs no saved state, and
    differs between repeated draws of an image within an epoch.
    """

    def __init__(self, transforms: list[A.BasicTransform], seed: int) -> None:
        self.compose = A.Compose(transforms)
        self.seed = seed

    def __call__(self, image: np.ndarray, epoch: int, place: int) -> np.ndarray:
        """Augmented copy of a grey uint8 image (H, W)."""
        stream = np.random.SeedSequence((self.seed, epoch, place))
        number = int(stream.generate_state(1, dtype=np.uint64)[0])
        self.compose.set_random_state(np.random.default_rng(stream), random.Random(number))
        return self.compose(image=image)["image"]
