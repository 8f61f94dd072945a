"""How fast do augmented batches reach the model? Three minutes on two cores, of which one is used.

Real 1024² films (procedural ones without real data), at 448 px with the augmentation of
csra_db_cas, in one process without workers: from a pack, and from the files. The peers get the same
images in the same process, by turns: the loader of most research code (colour decoding, colour
augmentation, normalising each sample) and torchvision's ImageFolder pipeline. The limits are the
augmentation alone, and decoding, resizing and augmentation alone, on grey arrays.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.runner import Answer, medians, real_data, timed
from benchmarks.speed.memory import make_pack
from core.data.images.decode import load_image
from core.data.loading.augmentation import Augmentation, strong_transforms
from core.data.loading.dataset import RadiographDataset, build_loader, unspoiled
from core.data.loading.samplers import TrainingBatches
from core.data.phantom.dataset import make_phantom
from core.data.tables import LabelTable, read_table

SIZE, BATCH, IMAGES = 448, 16, 96
# without decoding one pass is too short for the clock, and for what a loader costs once
PASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def answers() -> Iterator[Answer]:
    """Images a second from a pack and from files."""
    # as in a worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv, images = true_size(folder)
        pack = make_pack(csv, images, SIZE, folder / "pack")
        works = {
            "pack": ours(csv, pack, PASSES),
            "files": ours(csv, images, 1),
            "usual": usual(csv, images),
            "torchvision": torchvision(images, folder / "classes"),
            "augmentation": augmentation_alone(csv, images),
            "decoding": decoding_alone(csv, images),
        }
        rates = medians(works)
        yield from verdicts(rates)


def verdicts(rates: dict[str, float]) -> Iterator[Answer]:
    """One row for each pair that is compared, from images a second by name."""
    for what, ours_is, against, reference, floor in (
        ("from a pack", "pack", "usual research loader", "usual", 10),
        ("from a pack", "pack", "torchvision ImageFolder", "torchvision", None),
        ("from a pack", "pack", "bare augmentation", "augmentation", 0.85),
        ("from PNG files", "files", "usual research loader", "usual", 1.15),
        ("from PNG files", "files", "torchvision ImageFolder", "torchvision", None),
        ("from PNG files", "files", "bare decode+resize+aug", "decoding", 0.9),
    ):
        what = f"loader, {SIZE} px, {what}"
        yield Answer(what, rates[ours_is], against, rates[reference], "images/s", floor=floor)


def true_size(folder: Path) -> tuple[Path, Path]:
    """(CSV, folder) of images of 1024 pixels a side."""
    data = real_data()
    if data is not None:
        return data / "nih1024" / "train.csv", data / "nih1024" / "images"
    make_phantom(folder / "phantom", images=IMAGES, size=1024)
    return folder / "phantom" / "train.csv", folder / "phantom" / "images"


def rate(work: Callable[[], object], passes: int = 1) -> Callable[[], float]:
    """A work for `medians`: images a second of `work`, which makes so many passes over IMAGES."""
    measure = timed(work)
    return lambda: passes * IMAGES / measure()


def ours(csv: Path, images: Path, passes: int) -> Callable[[], float]:
    """Our loader as training uses it, on other epochs each time."""
    table = read_table(csv, images)
    augment = Augmentation(strong_transforms(SIZE), seed=0)
    dataset = RadiographDataset(table, np.arange(IMAGES), SIZE, augment)
    epochs = itertools.count(step=passes)

    def work() -> None:
        epoch = next(epochs)
        batches = TrainingBatches(
            plan=lambda _: np.arange(IMAGES),
            batch_size=BATCH,
            batches_per_epoch=IMAGES // BATCH,
            first_epoch=epoch,
            last_epoch=epoch + passes,
        )
        loader = build_loader(dataset, batches, 0, pin_memory=False, persistent=False)
        for _ in unspoiled(loader):
            pass

    return rate(work, passes)


class UsualDataset(Dataset):
    """What most research code does: everything in colour, each sample normalised by itself."""

    def __init__(self, table: LabelTable) -> None:
        self.table = table
        self.transform = A.Compose(
            [
                A.Resize(SIZE, SIZE),
                *strong_transforms(SIZE),
                A.Normalize(MEAN, STD),
                A.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(self.table.paths[index])
        assert image is not None
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        targets = torch.tensor(self.table.targets[index])
        return self.transform(image=image)["image"], targets


def usual(csv: Path, images: Path) -> Callable[[], float]:
    """The loader of most research code."""
    dataset = UsualDataset(read_table(csv, images))
    return rate(lambda: list(DataLoader(dataset, BATCH, shuffle=True)))


def torchvision(images: Path, classes: Path) -> Callable[[], float]:
    """ImageFolder with torchvision's transforms that come nearest: it has no CLAHE and no holes."""
    (classes / "all").mkdir(parents=True)
    for path in sorted(images.iterdir())[:IMAGES]:
        os.symlink(path.resolve(), classes / "all" / path.name)
    transform = v2.Compose(
        [
            v2.Resize((SIZE, SIZE)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomAffine(7, (0.03, 0.03), (0.95, 1.05))], 0.4),
            v2.RandomApply([v2.ColorJitter(0.08, 0.08)], 0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    dataset = datasets.ImageFolder(str(classes), transform)
    return rate(lambda: list(DataLoader(dataset, BATCH, shuffle=True)))


def augmentation_alone(csv: Path, images: Path) -> Callable[[], float]:
    """The same transforms on the same grey arrays in memory, and nothing else."""
    paths = read_table(csv, images).paths[:IMAGES]
    pixels = [load_image(path, SIZE) for path in paths]
    compose = A.Compose(strong_transforms(SIZE))
    return rate(lambda: [compose(image=image) for _ in range(PASSES) for image in pixels], PASSES)


def decoding_alone(csv: Path, images: Path) -> Callable[[], float]:
    """Decoding to grey, resizing and the transforms, and nothing else."""
    paths = read_table(csv, images).paths[:IMAGES]
    compose = A.Compose(strong_transforms(SIZE))

    def work() -> None:
        for path in paths:
            data = np.fromfile(path, dtype=np.uint8)
            pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
            assert pixels is not None
            pixels = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            compose(image=pixels)

    return rate(work)
