"""Images decoded once, at the size of every model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.data.images.collection import Images
from core.data.images.decode import resize
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
    """Each of `images` by its position, at each of `sizes`."""

    def __init__(self, images: Images, sizes: Sequence[int]) -> None:
        self.images, self.sizes = images, sizes

    def __getitem__(self, position: int) -> tuple[int, list[np.ndarray] | str]:
        """The position, and uint8 (size, size) for each size, or why it cannot be read."""
        try:
            pixels = self.images.read(position)
        except UserError as error:
            return position, str(error)
        return position, [resize(pixels, size) for size in self.sizes]


def collate(samples: list[tuple[int, list[np.ndarray] | str]]) -> Decoded:
    """A batch of what `ImagesAtSizes` gives."""
    read, positions, unreadable = [], [], []
    for position, images in samples:
        if isinstance(images, str):
            unreadable.append((position, images))
        else:
            read.append(images)
            positions.append(position)
    stacked = [torch.from_numpy(np.stack(same))[:, None] for same in zip(*read, strict=True)]
    return Decoded(stacked, positions, unreadable)
