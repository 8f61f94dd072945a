"""Does packing use all cores, and does its memory stay flat? Two minutes on two cores.

The rate of `python -m core.data.pack` on 1024² films, of which there are as many as it needs to run
for a while, against the cores times the rate of one process that decodes and resizes them and does
nothing else. The two take turns.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.runner import Answer, medians
from benchmarks.speed.loader import SIZE, true_size
from benchmarks.speed.memory import can_measure, link_images, peak_of
from core.data.phantom.dataset import make_phantom
from core.runtime.fabric import usable_cores

COPIES = 20  # links to each file, so that starting up is little of it

_DECODE = """
import sys, time
import cv2
from core.data.images.find_files import scan_folder
from core.data.images.decode import load_image
from pathlib import Path

cv2.setNumThreads(0)
folder, size = Path(sys.argv[1]), int(sys.argv[2])
names = sorted(scan_folder(folder))
load_image(folder / names[0], size)
began = time.perf_counter()
for name in names:
    load_image(folder / name, size)
print(len(names) / (time.perf_counter() - began))
"""


def answers() -> Iterator[Answer]:
    """Images a second over the cores' own, and peak memory against ten times fewer images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, images = true_size(folder)
        links = folder / "links"
        links.mkdir()
        count = 0
        for path in sorted(images.iterdir()):
            for copy in range(COPIES):
                os.symlink(path.resolve(), links / f"{copy}_{path.name}")
                count += 1

        def packing() -> float:
            began = time.perf_counter()
            subprocess.run(command(links, SIZE, folder / "pack"), check=True, capture_output=True)
            return count / (time.perf_counter() - began)

        def decoding() -> float:
            words = [sys.executable, "-c", _DECODE, str(images), str(SIZE)]
            done = subprocess.run(words, check=True, capture_output=True)
            return float(done.stdout)

        rates = medians({"packing": packing, "decoding": decoding}, repeats=3)
        cores = usable_cores()
        what = f"packing {count} films of 1024² at {SIZE} px"
        against = f"{cores} cores x one's decoding"
        yield Answer(
            what, rates["packing"], against, cores * rates["decoding"], "images/s", floor=0.9
        )

        if not can_measure():
            return
        make_phantom(folder / "phantom", images=100, size=64)
        few, many = (peak_megabytes(folder, images) for images in (2_000, 20_000))
        yield Answer(
            "packing: peak memory, 20,000 images", many, "2,000 images", few, "MB", ceiling=1.1
        )


def command(images: Path, size: int, pack: Path) -> list[str]:
    """The command that packs a folder anew."""
    words = ["--train_dir", images, "--size", size, "--out", pack, "--overwrite"]
    return [sys.executable, "-m", "core.data.pack", *map(str, words)]


def peak_megabytes(folder: Path, images: int) -> float:
    """Peak of the summed proportional memory of packing so many small images."""
    data = folder / str(images)
    link_images(folder / "phantom", data, images)
    return peak_of(command(data / "images", 64, data / "pack"))
