"""Faults of the system around a command: few open files, a killed worker, a clock set back."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

HOUR = 3600


def limit_open_files(number: int) -> None:
    """Apply `ulimit -n` to this process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def kill_worker() -> None:
    """Kill the worker process that the kernel would choose if memory were used up.

    The kernel itself is not made to choose: that would need a memory limit of root, and might end
    another program.
    """
    workers = [worker.pid for worker in multiprocessing.active_children()]
    os.kill(max(filter(None, workers), key=_badness), signal.SIGKILL)


def _badness(process: int) -> int:
    return int(Path(f"/proc/{process}/oom_score").read_text())


def set_clock_back(seconds: float = HOUR) -> None:
    """Set the wall clock of this process back, in all modules, but not the monotonic clock."""
    now = time.time

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return super().now(tz) - timedelta(seconds=seconds)

    def set_back() -> float:
        return now() - seconds

    for name, module in [*sys.modules.items()]:
        for attribute, value in [*getattr(module, "__dict__", {}).items()]:
            if value is now:
                setattr(module, attribute, set_back)
            elif value is datetime and name.startswith("core."):
                setattr(module, attribute, Clock)
