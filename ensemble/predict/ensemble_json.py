"""Reading and writing of `ensemble.json` (checkpoints and weights), and strict JSON of any kind.

{"kind": "ensemble", "format_version": 1,
 "members": [{"name": ..., "weight": ..., "checkpoints": [paths relative to this file's folder]}],
 "classes": [...], "made_from": {...}}
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from core.errors import UserError, escape_control
from core.io.atomic import check_writable, make_folder, write_atomically
from core.io.untrusted_files import read_json

FORMAT_VERSION = 1
LARGEST = sys.float_info.max
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]


class _Member(msgspec.Struct):
    name: str
    weight: NotNegative
    checkpoints: Annotated[list[str], Meta(min_length=1)]


class _Recipe(msgspec.Struct):
    members: Annotated[list[_Member], Meta(min_length=1)]
    classes: Annotated[list[str], Meta(min_length=1)]


def write_recipe(
    path: Path,
    members: Iterable[tuple[str, float, Sequence[Path]]],
    class_names: Sequence[str],
    made_from: Mapping[str, Any],
) -> None:
    """Write `ensemble.json`: names, weights and checkpoints; whole or not at all.

    members: (name, weight, checkpoints) of each; weights need no sum of 1. Raises UserError if the
    file cannot be written.
    """
    listed = []
    for name, weight, checkpoints in members:
        files = [_relative(file, path.parent) for file in checkpoints]
        listed.append({"name": name, "weight": weight, "checkpoints": files})
    content = {"members": listed, "classes": list(class_names), "made_from": dict(made_from)}
    write_document(path, "ensemble", content)


def _relative(path: Path, folder: Path) -> str:
    # keeps a checkpoint that is a link; resolves folders, as the system resolves ".."
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def read_recipe(path: Path) -> tuple[list[Path], list[float], list[str]]:
    """Read checkpoints, weights and classes; a member's weight is divided over its checkpoints.

    Raises UserError if the file is not a valid `ensemble.json`. Checkpoints are not opened.
    """
    recipe: _Recipe = convert(path, "it", read_document(path, "ensemble"), _Recipe)
    for names in (recipe.classes, [member.name for member in recipe.members]):
        check_name(path, *names)
        if len(set(names)) < len(names):
            refuse(path, "a class or a member's name is duplicate")
    checkpoints: list[Path] = []
    weights: list[float] = []
    for member in recipe.members:
        if not member.weight:
            continue
        check_name(path, *member.checkpoints)
        for text in member.checkpoints:
            if PurePosixPath(text).is_absolute():
                refuse(path, f"{quoted(text)} is not a path relative to the file's folder")
            checkpoints.append(path.parent / PurePosixPath(text))
        weights += [member.weight / len(member.checkpoints)] * len(member.checkpoints)
    if not weights:
        refuse(path, "no member has a weight above 0")
    return checkpoints, weights, recipe.classes


def check_output(
    path: Path, kind: str, inputs: Sequence[Path], *, beside: Sequence[Path] = (), overwrite: bool
) -> None:
    """Raise UserError if `path`, or a file `beside` it, is an input, exists or is not writable.

    `overwrite` allows to replace JSON of this `kind`.
    """
    if path.suffix != ".json":
        raise UserError(f"--output {path} must end in .json")
    for one in (path, *beside):
        check_writable(one, inputs)
        if one.exists() and not overwrite:
            raise UserError(f"{one} exists: give another --output, or --overwrite to replace it")
    if path.exists():
        try:
            read_document(path, kind)
        except UserError as error:
            raise UserError(
                f"{path} exists and is not a valid {kind}.json, which --overwrite does not "
                "replace: give another --output"
            ) from error


def write_document(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write `content`, without NaN, as JSON of this `kind`, whole or not at all.

    Raises UserError if it cannot be written.
    """
    make_folder(path.parent)
    write_atomically(path, lambda temporary: fill_document(temporary, kind, content))


def fill_document(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON of this `kind` into a temporary file."""
    document = {"kind": kind, "format_version": FORMAT_VERSION, **content}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Read the JSON object in `path`. Raises UserError if it is invalid or of another kind."""
    try:
        document = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        refuse(path, str(error))
    if document.get("kind") != kind:
        refuse(path, f"it is not a valid {kind}.json")
    version = document.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        shown = quoted(str(version))
        refuse(path, f"its format version is {shown}, but this program reads {FORMAT_VERSION}")
    return document


def convert(path: Path, what: str, value: object, kind: Any) -> Any:
    """Convert `value` to the type `kind`. Raises UserError if `what` is of another type."""
    try:
        return msgspec.convert(value, kind)
    except ValueError as error:
        refuse(path, f"{what} is invalid: {error}")


def refuse(path: Path, what: str) -> NoReturn:
    """Raise UserError for the invalid file `path`."""
    raise UserError(
        f"{path} cannot be used: {what}; make an ensemble.json by python -m ensemble.choose, a "
        "calibration.json by ensemble.calibrate"
    )


def quoted(text: str) -> str:
    """Text in quotes, at most 60 characters, control characters escaped."""
    return repr(text[:60])


def check_name(path: Path, *names: str) -> None:
    """Raise UserError if a name is empty, has control characters or is not UTF-8."""
    for name in names:
        written = escape_control(name.encode(errors="ignore").decode())
        if not name or written != name:
            refuse(path, f"the name {quoted(name)} is empty or has a control character")
