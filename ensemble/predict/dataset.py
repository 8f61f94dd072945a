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

Sample = tuple[int, list[np.ndarray] | str]


class Decoded(NamedTuple):
    """A batch: its readable images, and why the others are not."""

    images: list[Tensor]  # for each size uint8 (B, 1, size, size)
    positions: list[int]  # (B,) among all images
    unreadable: list[tuple[int, str]]  # (position, reason)


class ImagesAtSizes(Dataset):
    """Each of `images` by its position, at each of `sizes`."""

    def __init__(self, images: Images, sizes: Sequence[int]) -> None:
        self.images, self.sizes = images, sizes

    def __getitem__(self, position: int) -> Sample:
        """The position, and uint8 (size, size) for each size, or why it cannot be read."""
        try:
            pixels = self.images.read(position)
        except UserError as error:
            return position, str(error)
        return position, [resize(pixels, size) for size in self.sizes]


def collate(samples: list[Sample]) -> Decoded:
    """A batch of `ImagesAtSizes`."""
    read = [(position, images) for position, images in samples if not isinstance(images, str)]
    by_size = zip(*(images for _, images in read), strict=True)
    return Decoded(
        [torch.from_numpy(np.stack(same))[:, None] for same in by_size],
        [position for position, _ in read],
        [(position, reason) for position, reason in samples if isinstance(reason, str)],
    )
