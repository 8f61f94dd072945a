"""Forged safetensors files with a matching checksum."""

import json
import struct
from pathlib import Path
from typing import Any

from safetensors import safe_open

from core.models.checkpoint import _checksum


def split(data: bytes) -> tuple[bytes, bytes]:
    """The header's JSON and the tensors' bytes of a file."""
    length = struct.unpack_from("<Q", data)[0]
    return data[8 : 8 + length], data[8 + length :]


def joined(header: bytes, body: bytes) -> bytes:
    """A file of this header and this body."""
    return struct.pack("<Q", len(header)) + header + body


def header_of(data: bytes) -> dict[str, Any]:
    """The header of a file."""
    return json.loads(split(data)[0])


def forged(header: Any, body: bytes) -> bytes:
    """A file of this header and this body."""
    return joined(json.dumps(header).encode(), body)


def with_facts(data: bytes, facts: str) -> bytes:
    """The file with the JSON text `facts` as its metadata."""
    header, body = header_of(data), split(data)[1]
    header["__metadata__"]["facts"] = facts
    return forged(header, body)


def resealed(path: Path) -> None:
    """Recompute the checksum of a file, where it can be read."""
    data = path.read_bytes()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = file.metadata()["facts"]
        seal = _checksum(tensors, facts)
    # the project itself is to report the problem
    except Exception:
        return
    header = header_of(data)
    header["__metadata__"]["sha256"] = seal
    path.write_bytes(forged(header, split(data)[1]))


def lying_headers(data: bytes) -> dict[str, bytes]:
    """Files like `data` with a wrong description of a tensor, by the kind of error."""
    body = split(data)[1]
    names = [name for name in header_of(data) if name != "__metadata__"]
    made: dict[str, bytes] = {}

    def lie(what: str, **changes: Any) -> None:
        header = header_of(data)
        header[names[0]] |= changes
        made[what] = forged(header, body)

    shape = header_of(data)[names[0]]["shape"]
    values: dict[str, list[Any]] = {
        "shape": [[], [0], [-1], [2**63], [2**32, 2**32], [*shape, 1], [1] * 99, ["a"]],
        "dtype": ["F64", "I8", "BOOL", "F8_E4M3", "F4", "C64", "X", "", 5],
        "data_offsets": [[0, 0], [0, 2**63], [2**40, 2**41], [8, 4], [0], [-4, 4], "ab"],
    }
    for key, several in values.items():
        for value in several:
            lie(f"{key} {value}", **{key: value})
    second = header_of(data)[names[1]]
    lie("overlap", **second)
    lie("extra key", other=1)
    text = split(data)[0]
    twice = json.dumps({names[0]: header_of(data)[names[0]]})[1:-1].encode()
    made["a name twice"] = joined(text[:-1] + b", " + twice + b"}", body)
    made["metadata twice"] = joined(text[:-1] + b', "__metadata__": {}}', body)
    for name in ("../../x", "\x1b[2J", "", "a" * 100_000, "\ud800", "__metadata__\0"):
        header = header_of(data)
        header[name] = header.pop(names[0])
        made[f"named {name[:9]!r}"] = forged(header, body)
    for length in (0, 8, 10**8 + 1, 2**63, 2**64 - 1):
        made[f"length {length}"] = struct.pack("<Q", length) + data[8:]
    for text_of in (b"", b"{}", b"[]", b"null", b"{", b"\xff" * 9, b"[" * 10**5, b'{"a":' * 10**5):
        made[f"header {text_of[:9]!r}"] = joined(text_of, body)
    made["padded"] = joined(text + b" " * 10_000_000, body)
    made["more bytes"] = data + b"x"
    return made
