"""Images a second of the training loader. Three minutes on one core.

Real 1024² films (procedural ones without real data), at 448 px with the augmentation of
csra_db_cas, in one process without workers: from a pack, and from the files. The peers load the
same images in the same process, in alternation: the loader of most research code (colour decoding
and augmentation, normalisation of each sample) and torchvision's ImageFolder pipeline. The limits
are augmentation alone, and decoding, resizing and augmentation alone, on grey arrays.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.images import image_set, make_pack
from benchmarks.runner import Answer, medians, timed
from core.data.images.decode import load_image
from core.data.loading.augmentation import Augmentation, strong_transforms
from core.data.loading.batches import training_batches
from core.data.loading.dataset import RadiographDataset, decoding_loader
from core.data.tables import LabelTable, read_table

SIZE, BATCH, IMAGES = 448, 16, 96
# a single pass without decoding is too short to measure, and includes start-up costs
PASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# source of the images, key and name of the peer, floor
COMPARISONS = (
    ("a pack", "usual", "usual research loader", 10),
    ("a pack", "torchvision", "torchvision ImageFolder", None),
    ("a pack", "augmentation", "bare augmentation", 0.85),
    ("PNG files", "usual", "usual research loader", 1.15),
    ("PNG files", "torchvision", "torchvision ImageFolder", None),
    ("PNG files", "decoding", "bare decode+resize+aug", 0.9),
)


def answers(folder: Path) -> Iterator[Answer]:
    # as in a worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    films = image_set(folder, "nih1024", IMAGES, size=1024)
    files = read_table(films / "train.csv", films / "images")
    pack = read_table(films / "train.csv", make_pack(films, SIZE, folder / "pack"))
    paths = files.paths[:IMAGES]
    pixels = [load_image(path, SIZE) for path in paths]
    compose = A.Compose(strong_transforms(SIZE))
    rates = medians(
        {
            "a pack": rate(ours(pack, PASSES), PASSES),
            "PNG files": rate(ours(files, 1)),
            "usual": rate(peer(UsualDataset(files))),
            "torchvision": rate(peer(torchvision(films / "images", folder / "classes"))),
            "augmentation": rate(
                lambda: [compose(image=image) for _ in range(PASSES) for image in pixels], PASSES
            ),
            "decoding": rate(lambda: decode_and_augment(paths, compose)),
        },
        repeats=3,
    )
    for what, other, against, floor in COMPARISONS:
        question = f"loader, {SIZE} px, from {what}"
        yield Answer(question, "images/s", against, rates[what], rates[other], floor=floor)


def rate(work: Callable[[], object], passes: int = 1) -> Callable[[], float]:
    """Function that returns the images a second of `work`, which does `passes` over IMAGES."""
    measure = timed(work)
    return lambda: passes * IMAGES / measure()


def ours(table: LabelTable, passes: int) -> Callable[[], None]:
    """Our loader as in training, on new epochs each time."""
    augment = Augmentation(strong_transforms(SIZE), seed=0)
    dataset = RadiographDataset(table, np.arange(IMAGES), SIZE, augment)
    epochs = itertools.count(step=passes)

    def work() -> None:
        epoch = next(epochs)
        order = np.arange(IMAGES)
        passed = range(epoch, epoch + passes)
        batches = training_batches(lambda _: order, BATCH, IMAGES // BATCH, passed)
        for _ in decoding_loader(dataset, batches, 0):
            pass

    return work


def peer(dataset: Dataset) -> Callable[[], object]:
    """PyTorch's loader on a dataset."""
    return lambda: list(DataLoader(dataset, BATCH, shuffle=True))


class UsualDataset(Dataset):
    """Dataset of most research code: everything in colour, each sample normalised."""

    def __init__(self, table: LabelTable) -> None:
        self.paths, self.targets = table.paths, table.targets
        ending = [A.Normalize(MEAN, STD), A.ToTensorV2()]
        self.transform = A.Compose([A.Resize(SIZE, SIZE), *strong_transforms(SIZE), *ending])

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(self.paths[index])
        assert image is not None
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"], torch.tensor(self.targets[index])


def torchvision(images: Path, classes: Path) -> Dataset:
    """ImageFolder with torchvision's most similar transforms (no CLAHE, no dropout holes)."""
    classes.mkdir()
    (classes / "all").symlink_to(images.resolve())
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
    return Subset(datasets.ImageFolder(str(classes), transform), range(IMAGES))


def decode_and_augment(paths: Sequence[str], compose: A.Compose) -> None:
    """Decode to grey, resize and augment."""
    for path in paths:
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        compose(image=cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
