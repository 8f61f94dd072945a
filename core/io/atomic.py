"""Atomic writes, and the error for paths that cannot be written."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDIES = dict.fromkeys(_FULL, "free some space there, then rerun the command to resume") | {
    errno.ENOENT: "its folder was removed or moved; rerun the command to start again",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EIO: "check the disk, then rerun the command to resume",
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it, and rename it to `path`.

    Raises UserError if that fails; the old file is then unchanged.
    """
    # same suffix: writers choose their format by it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        # some writers create files that only their owner can read
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # an error here would hide the one above
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> UserError:
    """Error for a file or folder that cannot be written, with the remedy."""
    remedy = _REMEDIES.get(error.errno or 0)
    return UserError(
        f"{path} cannot be written: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
    )


def check_writable(path: Path, inputs: Iterable[Path], flag: str = "--output") -> None:
    """Raise UserError if `path` cannot be written or is one of the `inputs`."""
    if path.is_dir() or any(parent.is_file() for parent in path.parents):
        raise UserError(f"{path} cannot be written: it is a folder, or lies below a file")
    if path.resolve() in {one.resolve() for one in inputs}:
        raise UserError(f"{flag} would overwrite the input file {path}: choose another path")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        # only a trial detects a full or read-only disk, or a server that refuses root
        with tempfile.TemporaryFile(dir=folder, prefix="."):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents. Raises UserError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def together(*paths: Path) -> Iterator[None]:
    """Write several files together: if one fails, the new ones are deleted."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except UserError:
        for path in new:
            with suppress(OSError):
                path.unlink()
        raise
