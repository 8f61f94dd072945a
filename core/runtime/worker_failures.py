"""Failures of loader workers for lack of files, processes or memory, and their messages.

Torch is not imported here: every command needs these messages.
"""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from copy import copy
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from core.errors import UserError, doctor_hint, format_size

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# carries images from workers; some containers have only 64 MB
SHARED = Path("/dev/shm")
# macOS refuses a higher limit; 256 workers need no more
_ENOUGH_FILES = 10_240
_FEWER = "give fewer --num_workers"
_REMEDY = "give --num_workers 0, or enlarge /dev/shm (docker run --shm-size=8g)" + doctor_hint(
    "prints how much is free, and how much the presets need", " --num_workers NUMBER"
)
# exit code of a worker that lacks a resource: this plus the errno
_EXIT = 100
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS, errno.EAGAIN, errno.ENOMEM)
# messages of libraries that lose the errno
_WORDS = {
    "Too many open files in system": errno.ENFILE,
    "Too many open files": errno.EMFILE,
    "items of ancdata": errno.EMFILE,
    "can't start new thread": errno.EAGAIN,
    "Cannot allocate memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
    "No space left on device": errno.ENOSPC,
    "Bus error": errno.ENOSPC,
    "Resource temporarily unavailable": errno.EAGAIN,
}


def allow_open_files() -> None:
    """Raise the soft limit of open files towards the hard one, as far as workers may need."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_files(count: int) -> None:
    """Raise UserError if `count` more files cannot be opened."""
    if number := _files_left(count):
        raise UserError(_reason(number))


def is_shortage(error: OSError) -> bool:
    """Whether files, processes or memory are used up."""
    return error.errno in _SHORTAGES


def explain_failed_start(error: BaseException) -> UserError | None:
    """Error for loader workers that cannot be started; None for other errors."""
    lacks_semaphores = isinstance(error, ImportError) and "sem_open" in str(error)
    number = errno.ENOSYS if lacks_semaphores else _number(error)
    if number is None or getattr(error, "filename", None) is not None:
        return None
    return UserError(f"no loader worker can be started: {_reason(number)}")


def explain_lost_worker(error: BaseException, exit_codes: tuple[int, ...] = ()) -> UserError | None:
    """Error for a lost loader worker or an exhausted resource; None for other errors.

    `exit_codes` are those of ended workers, negative for a signal; the error may lack them.
    """
    # the exit code may be in the cause only
    text = f"{error} {error.__cause__}"
    # a defect in a worker has other words
    words = ("DataLoader worker (pid", "Pin memory thread exited")
    ended = bool(exit_codes) or isinstance(error, EOFError) or any(word in text for word in words)
    codes = [*map(int, re.findall(r"exit code (\d+)", text)), *exit_codes]
    number = next((code - _EXIT for code in codes if code > _EXIT), _number(error))
    if number and (ended or number in _SHORTAGES):
        return UserError(_reason(number))
    if not ended:
        return None
    # "" if unknown
    name = next((signal.Signals(-code).name for code in exit_codes if code < 0), "")
    if found := re.search(r"killed by signal: ([\w ]+)", text):
        names = {signal.strsignal(number): number.name for number in signal.Signals}
        name = name or names.get(found[1].strip(), "")
    if name in ("", "SIGKILL"):
        larger = f", or a larger {SHARED}" if sys.platform == "linux" else ""
        return UserError(
            f"a loader worker was ended{name and f' by {name}'}, perhaps for lack of memory "
            f"({_shared_memory()}): rerun the command to resume, with fewer --num_workers if "
            f"needed{larger}"
        )
    finds = doctor_hint("finds an image that cannot be read", " --full")
    return UserError(f"a loader worker crashed ({name}): rerun the command to resume{finds}")


def worker_context() -> BaseContext:
    """Multiprocessing context of loader workers, which can be terminated at once."""
    context: Any = copy(multiprocessing.get_context())
    context.Process = _Worker
    return context


def exit_on_shortage() -> None:
    """In a worker: exit if a batch cannot be sent, as the loader would wait for it."""
    feeder: Any = Queue
    feeder._on_queue_feeder_error = staticmethod(lambda error, _: _end(error))
    before = sys.excepthook

    def handle(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        # in the thread that sends file descriptors
        if _number(error) is not None:
            _end(error)
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main and isinstance(error, (ConnectionError, EOFError)):
            # the training process closed the connection, and reports why
            return
        before(kind, error, trace)

    sys.excepthook = handle


class _Worker(multiprocessing.Process):
    """A loader worker."""

    def run(self) -> None:
        try:
            super().run()
        except (OSError, RuntimeError, MemoryError) as error:
            if _number(error) is None:
                raise
            _end(error)

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802, as multiprocessing calls it
        started: Any = multiprocessing.Process._Popen(process)
        # workers ignore SIGTERM, and the interpreter would wait for them at exit; a reference to
        # the process itself would keep its files open (on Windows terminate kills)
        if hasattr(signal, "SIGKILL"):
            started.terminate = partial(os.kill, started.pid, signal.SIGKILL)
        return started


def _end(error: BaseException) -> None:
    number = _number(error)
    os._exit(1 if number is None else _EXIT + number)


def _number(error: BaseException) -> int | None:
    """Errno of an exhausted resource, by error, message or a trial; None if there is none."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    # a connection closed by a dead worker does not show the cause
    known = None if isinstance(error, ConnectionError) else getattr(error, "errno", None)
    if known in _SHORTAGES:
        return known
    text = f"{error} {error.__cause__}"
    found = next((number for words, number in _WORDS.items() if words in text), None)
    # tempfile and others replace the errno
    return found or _files_left() or known


def _files_left(count: int = 4) -> int | None:
    """Errno of opening `count` more files; None if that succeeds."""
    with ExitStack() as files:
        try:
            for _ in range(count):
                files.enter_context(open(os.devnull, "rb"))
        except OSError as error:
            return error.errno
    return None


def _reason(number: int) -> str:
    files = f"too many open files: {_FEWER}"
    if resource is not None:
        limit = f"a process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} here"
        files = f"too many open files: {limit} (ulimit -n); {_FEWER}, or raise the limit "
        files += "(ulimit -n 4096)"
    remedy = _REMEDY if sys.platform == "linux" else "give --num_workers 0"
    sentences = {
        errno.EMFILE: files,
        errno.ETOOMANYREFS: files,
        errno.ENFILE: f"too many open files on this computer: {_FEWER}, or close other programs",
        errno.EAGAIN: "no further process or thread can be started: the limit of processes (ulimit "
        "-u, a container's --pids-limit) or of memory (ulimit -v) is reached; "
        f"{_FEWER}, or raise it",
        errno.ENOMEM: f"memory is used up: {_FEWER} or a smaller --batch_size, or free memory "
        "(ulimit -v)",
        errno.ENOSPC: f"shared memory is full: {_shared_memory()}; {remedy}",
    }
    return sentences.get(number, f"{_shared_memory()} ({os.strerror(number)}); {remedy}")


def _shared_memory() -> str:
    """Size of shared memory; only Linux limits it by a file system."""
    if sys.platform != "linux":
        return "the limit of shared memory is unknown"
    try:
        usage = shutil.disk_usage(SHARED)
    except OSError:
        return f"{SHARED} is not there"
    return f"{SHARED} has {format_size(usage.total)}, of which {format_size(usage.free)} are free"
