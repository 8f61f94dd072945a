"""Stop signals: Ctrl-C, SIGTERM, and SIGUSR1 from schedulers."""

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
# seconds; a terminal and a launcher both send the same Ctrl-C to a process
SAME_CTRL_C = 1.0

OnStop = Callable[[int], object]


def handle_stops(on_stop: OnStop | None) -> dict[int, Any]:
    """Call `on_stop` with the number of the first of `STOPS`; returns the previous handlers.

    A Ctrl-C more than a second later ends the process at once, silently, with exit code 130.
    Repeated SIGTERM or SIGUSR1 are ignored. None: as if the first signal had just arrived.
    """
    since = time.monotonic() if on_stop is None else None

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal since
        if since is None and on_stop is not None:
            since = time.monotonic()
            on_stop(number)
        elif number == signal.SIGINT and time.monotonic() - (since or 0) > SAME_CTRL_C:
            os._exit(128 + number)

    return {number: signal.signal(number, handle) for number in STOPS}


def exit_on_signal(number: int) -> None:
    """End the program by an exception, for commands without work to finish."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            # during an import an exception might be lost or printed
            os._exit(128 + number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt(number)
    sys.exit(128 + number)


def restore_handlers(handlers: Mapping[Any, Any]) -> None:
    """Restore the handlers that `handle_stops` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
