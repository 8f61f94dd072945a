"""Files that are whole or not there."""

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from core.errors import UserError

LOCK = ".lock"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, flush it, and rename it to `path`.

    A reader sees the old file or the new one, never a part. Raises UserError where the folder
    cannot be written to or has no space left; the old file is then untouched.
    """
    # the suffix stays: writers choose their format by it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        # some writers make files that only their owner can read
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, inputs: Iterable[Path], flag: str = "--output") -> None:
    """Raise UserError where a file cannot be made at `path`, or is one of the `inputs`."""
    if path.is_dir() or any(above.is_file() for above in path.parents):
        raise UserError(f"{path} cannot be written: it is a folder, or lies below a file")
    if path.resolve() in {one.resolve() for one in inputs}:
        raise UserError(f"{path} is a file that is read: give another {flag}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}") from error


def lock_folder(folder: Path) -> IO[str]:
    """Make `folder` and hold it until what this returns is closed, or the process ends.

    Raises BlockingIOError where another process holds it, and other OSErrors where it cannot be
    made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK).open("w")
    try:
        # a lock that loader workers, which outlive a killed run for seconds, do not inherit
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
