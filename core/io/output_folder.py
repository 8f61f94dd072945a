"""Output folder written as a whole; only an earlier output is replaced."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from core.errors import UserError, list_first
from core.io.atomic import cannot_write, check_writable, make_folder

Result = TypeVar("Result")


def check_folder(
    path: Path, inputs: Sequence[Path], ours: re.Pattern[str], needed: str, *, overwrite: bool
) -> None:
    """Raise UserError if the folder `path` cannot be written or is not empty.

    With `overwrite`: if it has an input, a file with a name that does not match `ours`, or no file
    with a name that starts with `needed`.
    """
    check_writable(path / "x", inputs)
    if not path.exists() or not (names := sorted(os.listdir(path))):
        return
    if not overwrite:
        raise UserError(
            f"{path} is there already: name another --output, or pass --overwrite to replace it"
        )
    others = [name for name in names if not ours.fullmatch(name) or (path / name).is_dir()]
    if others or not any(name.startswith(needed) for name in names):
        raise UserError(
            f"{path} has other files ({list_first(others or names)}), which --overwrite would "
            "delete: name another --output"
        )
    if found := [one for one in inputs if one.resolve().parent == path.resolve()]:
        raise UserError(f"{path} has the input file {found[0].name}: name another --output")


def write_folder(path: Path, fill: Callable[[Path], Result], check: Callable[[], None]) -> Result:
    """Let `fill` write a new folder beside `path`, then replace `path`; returns its result.

    `check` is `check_folder`, called again before the replacement. Raises UserError if `path`
    cannot be written; the old folder is then unchanged.
    """
    path = path.resolve()
    make_folder(path.parent)
    new, old = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in ("", ".old"))
    try:
        new.mkdir()
        result = fill(new)
        check()
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if old.exists() and not path.exists():
            with suppress(OSError):
                old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        # if it could not be restored, it is the only copy
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
    return result
