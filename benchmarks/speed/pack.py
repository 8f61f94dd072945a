"""Speed of packing on all cores, and its peak memory. Two minutes on two cores.

The rate of `python -m core.data.pack` on many 1024² films, against the number of cores times the
rate of one process that only decodes and resizes them, in alternation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from benchmarks.images import image_set
from benchmarks.runner import Answer, alternate, output_of, timed
from benchmarks.speed.loader import IMAGES, SIZE
from benchmarks.speed.memory import growth
from core.data.images.decode import load_image
from core.runtime.fabric import usable_cores

COPIES = 20  # links to each file, so that start-up is a small part of the time


def answers(folder: Path) -> Iterator[Answer]:
    images, links = image_set(folder, "nih1024", IMAGES, size=1024) / "images", folder / "links"
    links.mkdir()
    for path in images.iterdir():
        for copy in range(COPIES):
            os.symlink(path.resolve(), links / f"{copy}_{path.name}")
    count, cores = len(os.listdir(links)), usable_cores()
    packing = timed(lambda: output_of(*command(links, SIZE, folder / "pack")))
    paths = sorted(images.iterdir())
    # as in a worker
    cv2.setNumThreads(0)
    decoding = timed(lambda: [load_image(path, SIZE) for path in paths])
    rates = alternate(lambda: count / packing(), lambda: cores * len(paths) / decoding(), repeats=2)
    what = f"packing {count} films of 1024² at {SIZE} px"
    yield Answer(what, "images/s", f"{cores} cores x one's decoding", *rates, floor=0.9)
    yield from growth(
        folder / "few_and_many",
        "packing: peak memory",
        (2_000, 20_000),
        lambda data: command(data / "images", 64, data / "pack"),
        ceiling=1.1,
    )


def command(images: Path, size: int, pack: Path) -> list[object]:
    """Arguments of `python` to pack a folder again."""
    words = ("--train_dir", images, "--size", size, "--out", pack, "--overwrite")
    return ["-m", "core.data.pack", *words]
