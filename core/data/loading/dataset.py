"""Dataset and loaders: batches of images and targets, decoded by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset

from core.config.training import LoaderConfig
from core.data.images.decode import resize
from core.data.images.digest import image_digest
from core.data.loading.batches import Sample, evaluation_batches
from core.data.loading.loader import DecodingLoader
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize
from core.runtime.fabric import worker_count
from core.runtime.signals import STOPS
from core.runtime.worker_failures import exit_on_shortage, worker_context

if TYPE_CHECKING:  # prediction does not need albumentations
    from core.data.loading.augmentation import Augmentation

# batches that each worker prefetches
PREFETCHED = 4


class Batch(NamedTuple):
    """Images uint8 (B, 1, H, W), targets float32 (B, C), and the images' rows in the table (B,).

    In evaluation, row -1 is padding. `constant`, bool (B,), marks images with a single grey level
    before augmentation; `digests`, int64 (B,), are digests of the pixels before augmentation, 0 for
    padding. Both are None if no image was decoded.
    """

    images: Tensor
    targets: Tensor
    rows: Tensor
    constant: Tensor | None = None
    digests: Tensor | None = None


class Batches(Protocol):
    """Loader of batches. Iteration raises UserError for an unreadable image."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class DecodedImage(NamedTuple):
    """One sample of a `Batch`, as arrays, so that collating copies each image only once."""

    image: np.ndarray
    targets: np.ndarray
    row: int
    constant: bool
    digest: int


class RadiographDataset(Dataset):
    """Images of `rows` of a table, indexed by (epoch, place in its plan, position among rows)."""

    def __init__(
        self, table: LabelTable, rows: np.ndarray, size: int, augment: Augmentation | None = None
    ) -> None:
        self.images = table.images.take(rows)
        self.targets = table.targets[rows]
        self.rows, self.size, self.augment = rows, size, augment

    def __getitem__(self, sample: Sample) -> DecodedImage | UserError:
        """One sample, or the image's error: raising it in a worker would print a traceback."""
        epoch, place, position = sample
        if position < 0:
            blank = np.zeros((self.size, self.size), dtype=np.uint8)
            unknown = np.full(self.targets.shape[1], np.nan, dtype=np.float32)
            return DecodedImage(blank, unknown, -1, False, 0)
        try:
            pixels = self.images.read(position)
        except UserError as error:
            return error
        image = resize(pixels, self.size)
        constant = bool(image.min() == image.max())
        digest = image_digest(pixels if self.images.pack[position] >= 0 else image)
        if self.augment is not None:
            image = self.augment(image, epoch, place)
        return DecodedImage(
            image, self.targets[position], int(self.rows[position]), constant, digest
        )


def decoding_loader(
    dataset: Dataset,
    batches: Iterable[list[Any]],
    workers: int,
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
    persistent: bool = False,
) -> DecodingLoader:
    """Loader of `batches` of samples, read by `workers` processes and combined by `collate`.

    By default it yields `Batch` objects. `persistent` keeps the workers between iterations.
    Iteration raises UserError for an unreadable image, and if workers cannot start or crash.
    """
    return DecodingLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate or _collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        multiprocessing_context=worker_context() if workers else None,
        prefetch_factor=PREFETCHED if workers else None,
        persistent_workers=persistent and workers > 0,
    )


def _collate(samples: list[DecodedImage | UserError]) -> Batch | UserError:
    if errors := [sample for sample in samples if isinstance(sample, UserError)]:
        return errors[0]
    images, targets, rows, constant, digests = zip(*cast(list[DecodedImage], samples), strict=True)
    return Batch(
        torch.from_numpy(np.stack(images))[:, None],
        torch.from_numpy(np.stack(targets)),
        torch.tensor(rows),
        torch.tensor(constant),
        torch.tensor(digests),
    )


def _start_worker(_: int) -> None:
    # by default cv2 starts one thread per core in each worker
    cv2.setNumThreads(0)
    # the training process handles stop signals sent to the whole process group
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    exit_on_shortage()


def evaluation_loader(
    fabric: Fabric, table: LabelTable, rows: np.ndarray, loader: LoaderConfig
) -> DecodingLoader:
    """Loader of this rank's share of the images of `rows`; a context that ends its workers."""
    batches = evaluation_batches(
        len(rows), loader.batch_size, fabric.global_rank, fabric.world_size
    )
    return decoding_loader(
        RadiographDataset(table, rows, loader.img_size),
        batches,
        worker_count(loader.num_workers),
        pin_memory=fabric.device.type == "cuda",
        persistent=True,
    )


def describe_blank_images(names: list[str]) -> str:
    """Warning about images with a single grey level."""
    return (
        f"Warning: {pluralize(len(names), 'image has', 'images have')} a single grey level, "
        f"like failed exports ({list_first(names)}): remove their rows from the CSV."
    )
