"""Signals that ask a program to stop: Ctrl-C, SIGTERM, and SIGUSR1 as schedulers send it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

# Windows has no SIGUSR1
STOPS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
# a terminal and a launcher send the same Ctrl-C to a process
SECONDS_OF_ONE_WISH = 1.0

Asked = Callable[[int], object]


def answer_stops(asked: Asked | None) -> dict[int, Any]:
    """Let the first of `STOPS` call `asked` with its number; returns what answered them before.

    A Ctrl-C more than a second later ends the process at once, with exit code 130 and without a
    word. SIGTERM and SIGUSR1 are the same wish however often a scheduler sends them: to be faster
    there is SIGKILL. None: as if the first one had come just now.
    """
    since = time.monotonic() if asked is None else None

    def answer(number: int, _: FrameType | None) -> None:
        nonlocal since
        if since is None and asked is not None:
            since = time.monotonic()
            asked(number)
        elif number == signal.SIGINT and time.monotonic() - (since or 0) > SECONDS_OF_ONE_WISH:
            os._exit(128 + number)

    return {number: signal.signal(number, answer) for number in STOPS}


def leave(number: int) -> None:
    """Answer a stop where nothing need be brought to its end: raise what ends the program."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            # an exception might be lost, or told, in a module that is half imported
            os._exit(128 + number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt(number)
    sys.exit(128 + number)


def put_back(answers: Mapping[Any, Any]) -> None:
    """Answer the signals again as `answer_stops` found them."""
    for number, handler in answers.items():
        signal.signal(number, handler)
