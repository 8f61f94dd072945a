"""Files that are whole or not there, and what to say where they cannot be."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MENDS = dict.fromkeys(_FULL, "make room there, and the same command goes on") | {
    errno.ENOENT: "its folder was removed or moved; the same command starts anew",
    errno.EROFS: "let that be writable again, or name another place",
    errno.EACCES: "let that be writable, or name another place",
    errno.EIO: "look after that disk, then the same command goes on",
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, flush it, and rename it to `path`.

    Raises UserError where that is not possible; the old file is then untouched.
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
        raise cannot_write(path, error) from error
    finally:
        # where even that is refused, the reason above is the one to tell
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> UserError:
    """The sentence for a file or folder that cannot be written: why, and what to do."""
    mend = _MENDS.get(error.errno or 0)
    return UserError(
        f"{path} cannot be written: {error.strerror or error}" + (f"; {mend}" if mend else "")
    )


def check_writable(path: Path, inputs: Iterable[Path], flag: str = "--output") -> None:
    """Raise UserError where a file cannot be made at `path`, or is one of the `inputs`."""
    if path.is_dir() or any(above.is_file() for above in path.parents):
        raise UserError(f"{path} cannot be written: it is a folder, or lies below a file")
    if path.resolve() in {one.resolve() for one in inputs}:
        raise UserError(f"{path} is a file that is read: give another {flag}")
    folder = next(above for above in path.absolute().parents if above.is_dir())
    try:
        # only a try tells: of a read-only disk, a full one, a server that refuses root
        with tempfile.TemporaryFile(dir=folder, prefix="."):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def together(*paths: Path) -> Iterator[None]:
    """Write files that belong together: where one cannot be, those that are new go again."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except UserError:
        for path in new:
            with suppress(OSError):
                path.unlink()
        raise
