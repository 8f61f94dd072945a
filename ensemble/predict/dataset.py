"""Dataset of images to predict: each is decoded once and resized for every model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.data.images.collection import Images
from core.data.images.decode import resize
from core.data.images.digest import image_digest
from core.errors import UserError

# position; the image at each size, or the reason why it is unreadable; digests
Sample = tuple[int, list[np.ndarray] | str, list[int]]


class DecodedBatch(NamedTuple):
    """A batch: readable images, and the reason for each unreadable one."""

    images: list[Tensor]  # for each size uint8 (B, 1, size, size)
    positions: list[int]  # (B,) among all images
    unreadable: list[tuple[int, str]]  # (position, reason)
    digests: np.ndarray  # int64 (B, S), 0 for none


class ImagesAtSizes(Dataset):
    """Images by position, at each of `sizes`, with digests at `digest_sizes`."""

    def __init__(
        self, images: Images, sizes: Sequence[int], digest_sizes: Sequence[int] = ()
    ) -> None:
        self.images, self.sizes, self.digest_sizes = images, sizes, digest_sizes

    def __getitem__(self, position: int) -> Sample:
        """Position; uint8 (size, size) for each size, or why it is unreadable; digests."""
        try:
            pixels = self.images.read(position)
        except UserError as error:
            return position, str(error), []
        resized = {size: resize(pixels, size) for size in self.sizes}
        is_packed = self.images.pack[position] >= 0
        digests = [
            # a pack of another size than the training's images cannot be compared
            0 if is_packed and len(pixels) != size else digest_at(size, pixels, resized)
            for size in self.digest_sizes
        ]
        return position, list(resized.values()), digests


def digest_at(size: int, pixels: np.ndarray, resized: Mapping[int, np.ndarray]) -> int:
    """Digest of pixels (H, W) at a square of `size`, taken from `resized` (by size) or made."""
    return image_digest(resized[size] if size in resized else resize(pixels, size))


def collate(samples: list[Sample]) -> DecodedBatch:
    """Collate samples of `ImagesAtSizes` into a batch."""
    read = [(p, images, digests) for p, images, digests in samples if not isinstance(images, str)]
    by_size = zip(*(images for _, images, _ in read), strict=True)
    return DecodedBatch(
        [torch.from_numpy(np.stack(same))[:, None] for same in by_size],
        [position for position, *_ in read],
        [(position, reason) for position, reason, _ in samples if isinstance(reason, str)],
        np.array([digests for *_, digests in read], dtype=np.int64),
    )
