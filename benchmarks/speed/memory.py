"""Does training on 100,000 images need more memory than on 1,000?"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runner import Answer
from core.data.phantom.dataset import make_phantom

SECONDS = 40  # of training, after which the peak is known


def answers() -> Iterator[Answer]:
    """Peak memory of the training process and its workers, against that with 1,000 images."""
    if not can_measure():
        return
    with tempfile.TemporaryDirectory() as folder:
        make_phantom(Path(folder) / "phantom", images=100, size=64)
        counts = (1_000, 100_000)
        for count in counts:
            link_images(Path(folder) / "phantom", Path(folder) / str(count), count)
        for what, packed in (("peak memory", False), ("peak memory of its own, packed", True)):
            few, many = (peak_megabytes(Path(folder) / str(count), packed) for count in counts)
            yield Answer(
                f"{what}, 100,000 images", many, "1.1 x 1,000 images", 1.1 * few, "MB", ceiling=1
            )


def can_measure() -> bool:
    """True if /proc reports memory by process; without it memory is not measured."""
    return Path("/proc/self/smaps_rollup").is_file()


def peak_megabytes(data: Path, packed: bool) -> float:
    """Peak of the summed proportional memory of one training run, stopped after a while.

    From a pack of the images without the map's pages: those are the system's cache of a file, which
    all processes share, and which it takes back when it needs memory.
    """
    images = data / "images"
    if packed:
        images = make_pack(data / "train.csv", images, 64, data / "pack")
    command = [
        *(sys.executable, "methods/standard_head/train.py", "--preset", "small"),
        *("--model", "test_efficientnet", "--no-pretrained", "--img_size", "64", "--epochs", "500"),
        *("--train_csv", str(data / "train.csv"), "--train_dir", str(images)),
        *(
            "--out_dir",
            str(data / f"out_{packed}"),
            "--warmup_head_epochs",
            "0",
            "--num_workers",
            "2",
        ),
        *("--run_folds", "1"),
    ]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, end = 0.0, time.monotonic() + SECONDS
    while time.monotonic() < end and run.poll() is None:
        peak = max(peak, tree_megabytes(run.pid, "Pss_Anon" if packed else "Pss"))
        time.sleep(0.2)
    run.send_signal(signal.SIGTERM)
    if run.wait() != 128 + signal.SIGTERM:
        raise RuntimeError(f"the run on {images} ended by itself with {run.returncode}")
    return peak


def make_pack(csv: Path, images: Path, size: int, pack: Path) -> Path:
    """Pack the images as a user would."""
    words = ["--train_csv", csv, "--train_dir", images, "--size", size, "--out", pack]
    command = [sys.executable, "-m", "core.data.pack", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return pack


def link_images(phantom: Path, data: Path, images: int) -> None:
    """`images` rows, four a patient, whose files are links to the phantom's few."""
    (data / "images").mkdir(parents=True)
    table = pd.read_csv(phantom / "train.csv")
    rows = table.iloc[np.arange(images) % len(table)].copy()
    names = [f"{number:06d}.png" for number in range(images)]
    for source, name in zip(rows["ImageID"], names, strict=True):
        os.link(phantom / "images" / source, data / "images" / name)
    rows["ImageID"], rows["PatientID"] = names, np.arange(images) // 4
    rows.to_csv(data / "train.csv", index=False)


def tree_megabytes(process: int, kind: str = "Pss") -> float:
    """Proportional memory of a process and its children now (Linux); Pss_Anon: without files."""
    children = Path(f"/proc/{process}/task/{process}/children")
    total = 0.0
    for number in [process, *map(int, children.read_text().split())]:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024
    return total


def peak_of(command: list[str]) -> float:
    """Peak of the summed proportional memory of a command that ends by itself, in MB."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while run.poll() is None:
        peak = max(peak, tree_megabytes(run.pid))
        with suppress(subprocess.TimeoutExpired):
            run.wait(0.1)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {run.returncode}")
    return peak
