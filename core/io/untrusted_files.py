"""Safe reading of untrusted files: regular-file check and strict JSON."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

# settings have kilobytes; isotonic maps of every class of a large table a few hundred
LARGEST_JSON = 16_000_000
_DEEPEST = 20


def check_regular(path: Path) -> None:
    """Raise ValueError for a pipe or a device, as reading it might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is a pipe or a device, not a file on a disk")


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Read the JSON object in a file, without repeated keys and NaN.

    Raises OSError if the file cannot be opened, and ValueError if it is invalid or larger than
    `largest` bytes.
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
        raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def strict_json(value: Any, depth: int = 0) -> Any:
    """A JSON value that JSON, Markdown and protobuf can store.

    None replaces numbers that are not finite or exceed 64 bits, and values nested too deeply; "?"
    replaces half a UTF-16 pair.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, (int, float)):
        # written so that NaN fails
        return value if abs(value) < (2**63 if isinstance(value, int) else math.inf) else None
    if depth >= _DEEPEST:
        return None
    if isinstance(value, list):
        return [strict_json(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {strict_json(name): strict_json(one, depth + 1) for name, one in value.items()}
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
