"""The settings of a JSON file, checked, and as the flags that they stand for."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.config import flat
from core.errors import UserError, in_plain_sight, nearest
from core.untrusted import read_json

# the names of a thousand labels
LONGEST_TEXT = 100_000


def read_settings(path: Path, presets: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The settings in the file, by flag name.

    Raises UserError where it is no JSON object of settings, or one has a value of another kind than
    those of `presets` have.
    """
    try:
        settings = read_json(path)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--config {path} cannot be used: {error}") from error
    known = flat(next(iter(presets.values()))())
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"--config {path}: there is no setting '{name}'{nearest(name, known)}")
        if name in ("config", "overwrite"):
            raise UserError(f"--config {path}: {name} belongs on the command line")
        if value is None and known[name] is not None and not isinstance(known[name], list):
            raise UserError(f"--config {path}: {name} cannot be null")
        if isinstance(known[name], list) and (value is None or isinstance(value, str)):
            # settings that are lists now and were not in older runs
            settings[name] = value = [] if value is None else [value]
        texts = value if isinstance(value, list) else [value]
        if not all(_is_usable(text) for text in texts if isinstance(text, str)):
            raise UserError(
                f"--config {path}: {name} holds a control character, or is longer than settings are"
            )
        if isinstance(value, list) and not all(_is_item(item) for item in value):
            raise UserError(
                f"--config {path}: {name} holds something that is no number and no plain text"
            )
        for kind, word in ((bool, "true or false"), (list, "a list"), (dict, "an object")):
            if isinstance(value, kind) != isinstance(known[name], kind) and value is not None:
                which = "must be" if isinstance(known[name], kind) else "cannot be"
                raise UserError(f"--config {path}: {name} {which} {word}")
    return settings


def _is_usable(text: str) -> bool:
    """Whether it can be printed on a line, and be the name of a file."""
    is_utf8 = text.encode(errors="ignore").decode() == text
    return is_utf8 and in_plain_sight(text) == text and len(text) <= LONGEST_TEXT


def _is_item(item: Any) -> bool:
    """Whether it is one value of a list: text like --overwrite would be read as a flag."""
    return type(item) in (int, float) or (isinstance(item, str) and not item.startswith("-"))


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The settings of a JSON file as flags, so that they are checked as flags are."""
    arguments: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def in_words(refusal: str) -> str:
    """What tyro printed about a value, in a box of several lines, on one line."""
    lines = [line.strip(" │╭╮╰╯") for line in refusal.splitlines()[1:]]
    rule = next((place for place, line in enumerate(lines) if not line.strip("─")), len(lines))
    return re.sub(r"^Error parsing (\w+: (?=--))?", "", " ".join(lines[:rule]))
