"""Peak memory of training on 100,000 images against 1,000, workers included.

For a pack, pages of its memory map are not counted: they are the system's file cache, which is
shared by all processes and released when memory is needed.
"""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.images import linked_images, make_pack, training
from benchmarks.runner import Answer

COUNTS = (1_000, 100_000)
SECONDS = 20  # of training, until the peak is reached
LONG = ("--model", "test_efficientnet", "--img_size", "64", "--epochs", "500", "--run_folds", "1")


def answers(folder: Path) -> Iterator[Answer]:
    def unpacked(data: Path, images: Path | None = None) -> list[object]:
        out = data / ("packed" if images else "unpacked")
        return training(data, out, *LONG, "--num_workers", "2", images=images)

    def packed(data: Path) -> list[object]:
        return unpacked(data, make_pack(data, 64, data / "pack"))

    what = "peak memory"
    yield from growth(folder, what, COUNTS, unpacked, 1.1, seconds=SECONDS)
    yield from growth(
        folder, f"{what} of its own, packed", COUNTS, packed, 1.1, "Pss_Anon", SECONDS
    )


def growth(
    folder: Path,
    what: str,
    counts: tuple[int, int],
    command: Callable[[Path], Sequence[object]],
    ceiling: float,
    kind: str = "Pss",
    seconds: float = math.inf,
) -> Iterator[Answer]:
    """Peak memory of a command on many images against few; no answer without /proc.

    folder: where the images are, or are made. counts: numbers of few and of many images. command:
    makes the arguments of `python` from an image set. kind, seconds: as in `peak_of`.
    """
    if not can_measure():
        return
    few, many = (peak_of(command(linked_images(folder, count)), kind, seconds) for count in counts)
    against = f"{counts[0]:,} images"
    yield Answer(f"{what}, {counts[1]:,} images", "MB", against, many, few, ceiling=ceiling)


def can_measure() -> bool:
    """True if /proc reports memory by process."""
    return Path("/proc/self/smaps_rollup").is_file()


def peak_of(words: Sequence[object], kind: str, seconds: float) -> float:
    """Peak of `tree_megabytes` of Python with these arguments, stopped by SIGTERM after `seconds`.

    Raises RuntimeError if it fails or ends early.
    """
    command = [sys.executable, *map(str, words)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, end = 0.0, time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < end:
        peak = max(peak, tree_megabytes(run.pid, kind))
        with suppress(subprocess.TimeoutExpired):
            run.wait(0.1)
    run.terminate()
    if run.wait() != (0 if seconds == math.inf else 128 + signal.SIGTERM):
        raise RuntimeError(f"{' '.join(command[:4])} ended with {run.returncode}")
    return peak


def tree_megabytes(process: int, kind: str = "Pss") -> float:
    """Proportional memory of a process and its children (Linux); Pss_Anon: without files."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    total = 0.0
    for number in (process, *children):
        with suppress(OSError):
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
    return total / 1024
