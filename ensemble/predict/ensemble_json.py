"""`ensemble.json`: which checkpoints to average, with which weights; and JSON read with suspicion.

{"kind": "ensemble", "format_version": 1,
 "members": [{"name": ..., "weight": ..., "checkpoints": [paths relative to this file's folder]}],
 "classes": [...], "made_from": {...}}
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from core.errors import UserError, in_plain_sight
from core.io.atomic import check_writable, make_folder, write_atomically
from core.io.untrusted_files import read_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Member:
    """A run in an ensemble: the checkpoints of its folds share its weight equally."""

    name: str
    weight: float
    checkpoints: tuple[Path, ...]


def write_recipe(
    path: Path, members: Sequence[Member], class_names: Sequence[str], made_from: Mapping[str, Any]
) -> None:
    """Write `ensemble.json` to `path`, whole or not at all.

    `made_from` says where it comes from, as JSON can hold it. Raises UserError where the folder
    cannot be written to.
    """
    listed = [
        {
            "name": member.name,
            "weight": member.weight,
            "checkpoints": [_relative(one, path.parent) for one in member.checkpoints],
        }
        for member in members
    ]
    content = {"members": listed, "classes": list(class_names), "made_from": dict(made_from)}
    write_document(path, "ensemble", content)


def _relative(path: Path, folder: Path) -> str:
    # a checkpoint that is a link stays one; folders are resolved, as ".." is by the system
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def read_recipe(path: Path) -> tuple[list[Path], list[float], list[str]]:
    """The checkpoints that `path` names, their weights, without members of weight 0, and classes.

    A member's weight is divided equally over its checkpoints. Raises UserError where the file is
    no whole `ensemble.json`; whether the checkpoints are there is not looked at.
    """
    document = read_document(path, "ensemble")
    classes = checked_list(path, document, "classes")
    for name in classes:
        check_name(path, "a class", name)
    if len(set(classes)) < len(classes):
        refuse(path, "a class is named twice")
    listed = checked_list(path, document, "members")
    members = [_member(path, number, member) for number, member in enumerate(listed, start=1)]
    if len({member.name for member in members}) < len(members):
        refuse(path, "two members have one name")
    if not any(member.weight for member in members):
        refuse(path, "no member has a weight above 0")
    checkpoints: list[Path] = []
    weights: list[float] = []
    for member in members:
        if member.weight:
            checkpoints += member.checkpoints
            weights += [member.weight / len(member.checkpoints)] * len(member.checkpoints)
    return checkpoints, weights, classes


def _member(path: Path, number: int, entry: Any) -> Member:
    if not isinstance(entry, dict):
        refuse(path, f"member {number} is no object")
    check_name(path, f"the name of member {number}", entry.get("name"))
    name = entry["name"]
    weight = checked_number(path, f"the weight of {quoted(name)}", entry.get("weight"))
    if weight < 0:
        refuse(path, f"the weight of {quoted(name)} is {weight:g}, which is below 0")
    checkpoints = []
    for text in checked_list(path, entry, "checkpoints"):
        check_name(path, f"a checkpoint of {quoted(name)}", text)
        if PurePosixPath(text).is_absolute():
            refuse(path, f"the checkpoint {quoted(text)} is no path relative to that file's folder")
        checkpoints.append(path.parent / PurePosixPath(text))
    return Member(name, weight, tuple(checkpoints))


def check_output(
    path: Path, kind: str, inputs: Sequence[Path], *, beside: Sequence[Path] = (), overwrite: bool
) -> None:
    """Look whether the JSON `path` of this `kind`, and the files `beside` it, may be written.

    Raises UserError where one cannot be, is an input, or is there already; with `overwrite` only
    where `path` holds something else than JSON of this kind.
    """
    if path.suffix != ".json":
        raise UserError(f"--output {path} does not end in .json: name it so")
    for one in (path, *beside):
        check_writable(one, inputs)
        if one.exists() and not overwrite:
            raise UserError(f"{one} exists: give another --output, or --overwrite replaces it")
    if path.exists():
        try:
            read_document(path, kind)
        except UserError as error:
            raise UserError(
                f"{path} is there and no {kind}.json, so that --overwrite leaves it alone: give "
                "another --output"
            ) from error


def write_document(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write `content`, in which no number is NaN, as JSON of this `kind`, whole or not at all."""
    document = {"kind": kind, "format_version": FORMAT_VERSION, **content}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    make_folder(path.parent)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object that `path` holds, of this `kind` and format version.

    Raises UserError where it cannot be read, is too large, is no JSON or something else.
    """
    try:
        document = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        refuse(path, str(error))
    if document.get("kind") != kind:
        refuse(path, f"it is no {kind}.json")
    version = document.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        told = version if type(version) is int else "unknown"
        refuse(path, f"its format version is {told} and this program reads {FORMAT_VERSION}")
    return document


def refuse(path: Path, what: str) -> NoReturn:
    """Raise UserError that `path` is not what it should be."""
    raise UserError(
        f"{path} cannot be used: {what}; python -m ensemble.choose makes an ensemble.json anew, "
        "ensemble.calibrate a calibration.json"
    )


def quoted(text: str) -> str:
    """In quotes, on one line, without what a terminal would obey, and not long."""
    return repr(text[:60])


def check_name(path: Path, what: str, name: object) -> None:
    """Raise UserError where `name` is no text, empty, or cannot be written on one line."""
    if not isinstance(name, str) or name.encode(errors="ignore").decode() != name or not name:
        refuse(path, f"{what} is no name")
    if in_plain_sight(name) != name:
        refuse(path, f"{what} has a control character in it")


def checked_number(path: Path, what: str, value: object) -> float:
    """A finite number. Raises UserError for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        refuse(path, f"{what} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(path, f"{what} is not finite")
    return number


def checked_list(path: Path, entry: Mapping[str, Any], key: str) -> list[Any]:
    """The list `key`, which is not empty. Raises UserError for anything else."""
    values = entry.get(key)
    if not isinstance(values, list) or not values:
        refuse(path, f'"{key}" is no list with something in it')
    return values
