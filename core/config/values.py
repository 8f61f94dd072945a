"""Types of settings with ranges, and the check of values from files and flags.

Neither torch nor timm is imported in this package, so that `--help` is fast.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from core.errors import UserError, suggest_name

Count = Annotated[int, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(ge=1)]
Folds = Annotated[int, Meta(ge=2)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Switch = Literal["auto", "on", "off"]
Workers = Literal["auto"] | Annotated[int, Meta(ge=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
FractionBelowOne = Annotated[float, Meta(ge=0, lt=1)]

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "Number out of range": "a finite number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "|": "or",
    ">=": "at least",
    ">": "above",
    "<=": "at most",
    "<": "below",
}


def groups(config: Any) -> Iterator[Any]:
    """Iterate over `config` and its nested groups of settings."""
    yield config
    for field in fields(config):
        if is_dataclass(group := getattr(config, field.name)):
            yield from groups(group)


def field_names(group: Any) -> list[str]:
    """Names of a group's settings, without nested groups."""
    return [field.name for field in fields(group) if not is_dataclass(getattr(group, field.name))]


def flat(config: Any, *, whole_paths: bool = True) -> dict[str, Any]:
    """Flatten a Config to JSON-able settings by flag name; paths whole or by their last part."""
    return {
        name: _to_json(getattr(group, name), whole_paths)
        for group in groups(config)
        for name in field_names(group)
    }


def types_of(config: Any) -> dict[str, Any]:
    """Types of all settings of a Config, with their ranges, by flag name."""
    types: dict[str, Any] = {}
    for group in groups(config):
        kind: Any = type(group)
        hints = _hints(kind)
        types |= {name: hints[name] for name in field_names(group)}
    return types


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def assign(config: Any, settings: dict[str, Any]) -> None:
    """Assign `settings`, by flag name, to a Config."""
    for group in groups(config):
        for name in field_names(group):
            setattr(group, name, settings.get(name, getattr(group, name)))


def check_values(config: Any) -> None:
    """Raise UserError if a value is out of range."""
    types = types_of(config)
    for name, value in flat(config).items():
        convert(name, value, types[name])


def check_together(config: Any) -> None:
    """Raise UserError if settings contradict each other, by `check` of each group."""
    for group in reversed([*groups(config)]):
        if hasattr(group, "check"):
            group.check()


def convert(name: str, value: Any, kind: Any, origin: str = "") -> Any:
    """Convert the JSON `value` of the setting `name` to its type `kind`: a Path, a tuple.

    Raises UserError, which starts with `origin`, for another type or a value out of range.
    """
    try:
        found = msgspec.convert(value, kind, dec_hook=_read_path)
    except msgspec.ValidationError as error:
        reason = str(error)
    else:
        items = value if isinstance(value, list) else [value]
        numbers = [item for item in items if isinstance(item, (int, float))]
        if all(abs(number) <= sys.float_info.max for number in numbers):
            return found
        reason = "Expected finite"
    if reason.startswith("Invalid enum"):
        choices = choices_of(kind)
        given = map(str, value if isinstance(value, list) else [value])
        wrong = next(item for item in given if item not in choices)
        raise UserError(f"{origin}there is no --{name} '{wrong}'{suggest_name(wrong, choices)}")
    which = f"each of --{name}" if " - at" in reason else f"--{name}"
    raise UserError(f"{origin}{which} must be {_in_words(reason)}, not {json.dumps(value)}")


def spell_switches(words: list[str], types: dict[str, Any]) -> list[str]:
    """A command line with --X and --no-X of each Switch X as `--X on` and `--X off`."""
    names = [name for name, kind in types.items() if kind == Switch]
    opposite = {f"--no{mark}{name}": f"--{name}" for name in names for mark in "-_"}
    spelled = []
    for word, after in zip(words, [*words[1:], "--"], strict=False):
        spelled += [opposite[word], "off"] if word in opposite else [word]
        if word.removeprefix("--") in names and after.startswith("--"):
            spelled.append("on")
    return spelled


def choices_of(kind: Any) -> list[str]:
    """Choices of a type that is or contains a Literal; else []."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return list(dict.fromkeys(choice for one in get_args(kind) for choice in choices_of(one)))


def is_choice(kind: Any) -> bool:
    """Whether all values of this type are `choices_of`, tuples of them, or None."""
    if get_origin(kind) is Literal:
        return True
    parts = [one for one in get_args(kind) if one not in (NoneType, Ellipsis)]
    return bool(parts) and all(map(is_choice, parts))


def _in_words(reason: str) -> str:
    """ "at least 1" for msgspec's "Expected `int` >= 1"."""
    wanted = re.split(", got| - at", reason.replace("`", ""))[0].removeprefix("Expected ")
    # of a range only the limit
    wanted = re.sub(r"^\w+ (?=[<>])|\.0$", "", wanted)
    return _WORDS.get(wanted) or " ".join(_WORDS.get(word, word) for word in wanted.split())


def _read_path(kind: type, value: Any) -> Path:
    if not isinstance(value, str):
        raise TypeError("Expected `str`")
    return Path(value)


def _to_json(value: Any, whole_paths: bool) -> Any:
    if isinstance(value, Path):
        return str(value) if whole_paths else value.name
    return [_to_json(item, whole_paths) for item in value] if isinstance(value, tuple) else value
