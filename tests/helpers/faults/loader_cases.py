"""Loaders in trouble: `loader_cases.py FOLDER` plays the cases that come as JSON on stdin.

Each is played in a process of its own, forked from one that has imported PyTorch, and goes through
the whole end of an interpreter. Prints [exit code, seconds, stderr, whether processes are left].
"""

import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config.command_line import run
from core.data.loading.dataset import decoding_loader

ENDS_WITHIN = 60.0


class Troubled:
    """Samples, the seventh of which makes trouble in its worker."""

    def __init__(self, trouble: str) -> None:
        self.trouble, self.files = trouble, list[Any]()

    def __getitem__(self, place: int) -> Tensor:
        if place == 6 and self.trouble in ("SIGKILL", "SIGSEGV", "SIGABRT"):
            os.kill(os.getpid(), getattr(signal, self.trouble))
        if place == 6 and self.trouble == "memory":
            raise MemoryError
        while place == 6 and self.trouble == "files":
            self.files.append(os.fdopen(os.open(__file__, os.O_RDONLY)))
        if self.trouble == "threads":
            threading._start_new_thread = refuse  # type: ignore[attr-defined]
        return torch.full((4,), place)


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def fork_thrice() -> None:
    """Let the third fork fail, as at the limit of processes."""
    fork, forks = os.fork, list[int]()

    def limited() -> int:
        if len(forks) == 2:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        forks.append(1)
        return fork()

    os.fork = limited


def play(case: dict[str, Any]) -> None:
    """Read two loaders in turn, as a training and its validation do."""
    if case.get("trouble") == "fork":
        fork_thrice()
    loaders = []
    for _ in range(2):
        batches = [[place, place + 1] for place in range(0, 120, 2)]
        loader = decoding_loader(
            Troubled(case.get("trouble", "")),  # type: ignore[arg-type]
            batches,
            case["workers"],
            collate=lambda samples: [*samples, torch.stack(samples)],
            persistent=True,
        )
        loaders.append((loader, iter(loader)))
        for _ in range(20):
            next(loaders[-1][1])


def attend(process: int, told: Path) -> tuple[int, float, str, bool]:
    began, ended = time.monotonic(), 0
    while not ended and time.monotonic() - began < ENDS_WITHIN:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.02)
    seconds = time.monotonic() - began
    left = True
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        left = False
    if not ended:
        status = os.waitpid(process, 0)[1]
    return os.waitstatus_to_exitcode(status), seconds, told.read_text(), left


if __name__ == "__main__":
    cases, outcomes, own = json.load(sys.stdin), [], None
    for number, case in enumerate(cases):
        told = Path(sys.argv[1]) / f"{number}.txt"
        if not (process := os.fork()):
            own = case
            os.setsid()
            os.dup2(os.open(told, os.O_CREAT | os.O_WRONLY), 2)
            os.dup2(2, 1)
            if "files" in case:
                resource.setrlimit(resource.RLIMIT_NOFILE, (case["files"], case["files"]))
            break
        outcomes.append(attend(process, told))
    if own is None:
        print(json.dumps(outcomes))
    else:
        run(partial(play, own))
