"""Files that are whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path

from core.errors import UserError


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
