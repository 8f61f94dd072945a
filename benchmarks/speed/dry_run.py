"""Estimates of `--dry_run` against the run. Twelve minutes on two cores.

Time, peak memory and disk space of three trainings: of a whole model from files, of a head phase
with cached features and re-training from a pack, and of a frozen backbone. Runs only when it is
named.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.images import image_set, make_pack
from benchmarks.runner import Answer, output_of

SIZE = 96
COMMON = ("--preset", "small", "--no-pretrained", "--folds", "3", "--run_folds", "1", "2")
SETTINGS: dict[str, Sequence[object]] = {
    "standard_head": ["--epochs", 4, "--num_workers", 1],
    "csra_db_cas": [
        *("--model", "resnet26t", "--warmup_head_epochs", 6, "--head_views", 2, "--epochs", 3),
        *("--retrain_epochs", 2, "--num_workers", 0),
    ],
    "label_coupling": [
        *("--model", "resnet50", "--freeze_backbone", "--epochs", 8, "--num_workers", 1),
        *("--img_size", 160, "--refiner"),
    ],
}
UNITS = {"s": 1.0, "min": 60.0, "hours": 3600.0, "MB": 1.0, "GB": 1000.0}
NEAR = 0.15


def answers(folder: Path) -> Iterator[Answer]:
    data = image_set(folder, "nih1000", images=1000)
    pack = make_pack(data, SIZE, folder / "pack")
    for method, flags in SETTINGS.items():
        images = pack if "--retrain_epochs" in flags else data / "images"
        out = folder / method
        words = [
            *(f"methods/{method}/train.py", *COMMON, "--img_size", SIZE, *flags),
            *("--train_csv", data / "train.csv", "--train_dir", images, "--out_dir", out),
        ]
        printed = output_of(*words, "--dry_run")
        seconds, megabytes = run(words)
        yield near(f"{method}: time", "s", estimate(printed, r"in all +about (\S+) (\w+)"), seconds)
        memory = estimate(printed, r"memory +at most (\S+) (\w+)")
        yield near(f"{method}: peak memory", "MB", memory, megabytes)
        disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
        yield near(f"{method}: disk", "MB", estimate(printed, r"disk +(\S+) (\w+)"), disk)


def near(question: str, unit: str, estimated: float, measured: float) -> Answer:
    """Row of an estimate that must be within NEAR of the measured value."""
    return Answer(f"dry run, {question}", unit, "the run", estimated, measured, 1 - NEAR, 1 + NEAR)


def estimate(printed: str, pattern: str) -> float:
    """Number and unit in the output of a dry run, in seconds or megabytes."""
    found = re.search(pattern, printed)
    assert found is not None, printed
    return float(found[1].replace(",", "")) * UNITS[found[2]]


def run(words: Sequence[object]) -> tuple[float, float]:
    """Seconds and peak megabytes of Python with these arguments. Raises RuntimeError."""
    began = time.perf_counter()
    command = [sys.executable, *map(str, words)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {started.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6
