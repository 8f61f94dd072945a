"""Failing data loaders, as a command: runs one case, given as JSON."""

import errno
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

import torch
from torch import Tensor

from core.data.loading.dataset import decoding_loader


class Troubled:
    """Samples, the seventh of which fails in its worker."""

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


def main() -> None:
    """Read two loaders in turn, as training and validation do."""
    case = json.loads(sys.argv[1])
    if "files" in case:
        resource.setrlimit(resource.RLIMIT_NOFILE, (case["files"], case["files"]))
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
