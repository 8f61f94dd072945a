"""Images decoded once, at the size of every model."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.data.image import read_image, resize
from core.errors import UserError


class Decoded(NamedTuple):
    """A batch: those of its images that can be read, and why the others cannot."""

    images: list[Tensor]
    """For each size uint8 (B, 1, size, size)."""
    positions: list[int]
    """(B,) which images these are."""
    unreadable: list[tuple[int, str]]
    """(position, reason)"""


class ImagesAtSizes(Dataset):
    """Each image of `paths`, by its position, at each of `sizes`."""

    def __init__(self, paths: Sequence[str], sizes: Sequence[int]) -> None:
        # one array of bytes: a list of strings would be copied into every worker
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.sizes = sizes

    def __getitem__(self, position: int) -> tuple[int, list[Tensor] | str]:
        """The position, and uint8 (1, size, size) for each size, or why it cannot be read."""
        try:
            pixels = read_image(os.fsdecode(self.paths[position]))
        except UserError as error:
            return position, str(error)
        return position, [torch.from_numpy(resize(pixels, size))[None] for size in self.sizes]


def collate(samples: list[tuple[int, list[Tensor] | str]]) -> Decoded:
    """A batch of what `ImagesAtSizes` gives."""
    read, positions, unreadable = [], [], []
    for position, images in samples:
        if isinstance(images, str):
            unreadable.append((position, images))
        else:
            read.append(images)
            positions.append(position)
    return Decoded([torch.stack(same) for same in zip(*read, strict=True)], positions, unreadable)
