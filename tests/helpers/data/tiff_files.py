"""TIFF files from raw parts, for content that no library writes."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

_OFFSETS, _COUNTS, _TILE_WIDTH, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 322, 324, 325


def tiff(
    tags: Mapping[int, int | Sequence[int] | bytes],
    *pieces: bytes,
    counts: Sequence[int] | None = None,
    order: str = "<",
    following: int = 0,
) -> bytes:
    """A TIFF of these tags, all LONG but bytes, with its strips or tiles behind them.

    `counts` claims other lengths than the pieces have; `following` is the place of the next
    directory. A piece that is given several times is written once.
    """
    lengths = list(counts if counts is not None else map(len, pieces))
    places = (_TILE_OFFSETS, _TILE_COUNTS) if _TILE_WIDTH in tags else (_OFFSETS, _COUNTS)
    tags = {places[0]: [0] * len(lengths), places[1]: lengths} | dict(tags)
    values = {
        tag: np.atleast_1d(np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value)
        for tag, value in tags.items()
    }
    sizes = {tag: len(value) * _size(tags[tag]) for tag, value in values.items()}
    rest = 8 + 2 + 12 * len(tags) + 4
    end = rest + sum(size for size in sizes.values() if size > 4)
    written: dict[bytes, int] = {}
    for piece in pieces:
        written.setdefault(piece, end + sum(map(len, written)))
    if pieces:
        values[places[0]] = np.array([written[piece] for piece in pieces])
    entries, long = b"", b""
    for tag in sorted(tags):
        kind = f"{order}u{_size(tags[tag])}"
        content = np.asarray(values[tag], dtype=np.uint64).astype(kind).tobytes()
        if len(content) > 4:
            content, long = struct.pack(f"{order}I", rest + len(long)), long + content
        code = {1: 7, 4: 4}[_size(tags[tag])]
        entries += struct.pack(f"{order}HHI", tag, code, len(values[tag])) + content.ljust(4, b"\0")
    head = struct.pack(f"{order}HIH", 42, 8, len(tags))
    mark = {"<": b"II", ">": b"MM"}[order]
    return mark + head + entries + struct.pack(f"{order}I", following) + long + b"".join(written)


def _size(value: object) -> int:
    return 1 if isinstance(value, bytes) else 4
