"""Albumentations pipelines on grey uint8 images, with one random stream a sample."""

import os
import random

# it asks the network for a newer version at import otherwise, and waits
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np


def light_transforms(
    *,
    shift: float = 0.03,
    scale: float = 0.05,
    rotation: float = 7.0,
    affine_p: float = 0.5,
    jitter: float = 0.08,
    jitter_p: float = 0.2,
) -> list[A.BasicTransform]:
    """Mirror (p .5), affine and brightness/contrast.

    `shift` and `scale` are parts of the side, `rotation` degrees, `jitter` a part of the grey
    range.
    """
    return [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            translate_percent=(-shift, shift),
            scale=(1 - scale, 1 + scale),
            rotate=(-rotation, rotation),
            p=affine_p,
            strict=True,
        ),
        A.RandomBrightnessContrast(
            brightness_limit=jitter, contrast_limit=jitter, p=jitter_p, strict=True
        ),
    ]


class Augmentation:
    """Transforms whose outcome depends on (seed, epoch, index) alone.

    So it is the same for any number of workers and processes, and needs no saved state.
    """

    def __init__(self, transforms: list[A.BasicTransform], seed: int) -> None:
        self.compose = A.Compose(transforms)
        self.seed = seed

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Augmented copy of a grey uint8 image (H, W)."""
        stream = np.random.SeedSequence((self.seed, epoch, index))
        number = int(stream.generate_state(1, dtype=np.uint64)[0])
        self.compose.set_random_state(np.random.default_rng(stream), random.Random(number))
        return self.compose(image=image)["image"]
