"""Files that others made: a look at what they are, and JSON that holds no surprise."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

# settings have kilobytes; isotonic maps of every class of a large table a few hundred
LARGEST_JSON = 16_000_000
_DEEPEST = 20


def check_regular(path: Path) -> None:
    """Raise ValueError where reading might never end, as of a pipe or a device."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is a pipe or a device, and no file on a disk")


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """The JSON object in a file, without repeated keys and NaN.

    Raises OSError where the file cannot be opened, and ValueError where it is something else, or
    larger than settings can be.
    """
    check_regular(path)
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_number
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def unsurprising(value: Any, depth: int = 0) -> Any:
    """What JSON held, as any of JSON, Markdown and protobuf can hold it: None for a number that is
    not finite or has over 64 bits and for what is nested too deep, "?" for half a UTF-16 pair."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, (int, float)):
        # NaN is below nothing
        return value if abs(value) < (2**63 if isinstance(value, int) else math.inf) else None
    if depth >= _DEEPEST:
        return None
    if isinstance(value, list):
        return [unsurprising(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {unsurprising(name): unsurprising(one, depth + 1) for name, one in value.items()}
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
