"""Time and memory of a whole process, its workers included."""

import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.memory import can_measure, tree_megabytes

_SPEED = re.compile(r"([\d.]+) images/s")
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Cost:
    """Seconds, megabytes and images a second of a process; NaN for what it does not print."""

    processor: float
    """Seconds of all its processes on all cores."""
    wall: float
    first_step: float
    """Seconds until it prints "first step"."""
    megabytes: float
    """Peak memory of all its processes together."""
    images_per_second: float
    """The last that it prints."""


def cost_of(words: Sequence[object]) -> Cost:
    """Run Python with these arguments to its end. Raises RuntimeError if it fails."""
    # late: Windows lacks it
    import resource

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, *map(str, words)]
    first, lines, peaks = math.nan, [], [math.nan]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    ) as run:
        watcher = threading.Thread(target=_watch, args=(run, peaks))
        watcher.start()
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            # a progress bar may share the line
            if "first step" in line and math.isnan(first):
                first = time.perf_counter() - began
        code = run.wait()
        wall = time.perf_counter() - began
        watcher.join()
    printed, after = "".join(lines), resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {code}: {printed[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    speeds = _SPEED.findall(printed)
    speed = float(speeds[-1]) if speeds else math.nan
    return Cost(processor, wall, first, max(peaks[1:], default=math.nan), speed)


def _watch(run: subprocess.Popen, megabytes: list[float]) -> None:
    """Append the memory of a process and its children, until it ends."""
    while can_measure() and run.poll() is None:
        with suppress(OSError):
            megabytes.append(tree_megabytes(run.pid))
        time.sleep(0.2)
