"""Files spoiled byte by byte, each by a number: the same number always spoils in the same way."""

import struct
import zlib

import numpy as np

# what sizes and offsets overflow at
_EXTREMES = [
    *(b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\x7f"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
    *(b"\x80\0\0\0", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8, b"\0\0\0\0\0\0\xf0\x7f"),
]
_PNG = b"\x89PNG\r\n\x1a\n"


def spoil(data: bytes, number: int, reach: int | None = None) -> bytes:
    """`data` with one to four changes within its first `reach` bytes."""
    random = np.random.default_rng([number, len(data)])
    for _ in range(int(random.choice([1, 1, 2, 4]))):
        data = _change(data, random, min(reach or len(data), len(data)))
    # behind a wrong checksum nothing would be reached
    return with_checksums(data) if data.startswith(_PNG) and random.random() < 0.8 else data


def _change(data: bytes, random: np.random.Generator, reach: int) -> bytes:
    place = int(random.integers(max(reach, 1)))
    end = place + int(random.integers(1, 32))
    kind = random.integers(6)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + random.bytes(1) + data[place + 1 :]
    if kind == 2:
        value = _EXTREMES[random.integers(len(_EXTREMES))]
        return data[:place] + value + data[place + len(value) :]
    if kind == 3:
        return data[:place] + data[end:]
    if kind == 4:
        return data[:end] + data[place:]
    return data[:place] + random.bytes(end - place) + data[place:]


def flipped(data: bytes, place: int, mask: int) -> bytes:
    """`data` with the bits of `mask` of one byte turned."""
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they now hold."""
    fixed, start = data[:8], 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data):
            break
        fixed += data[start:end] + struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return fixed + data[start:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, body: bytes, *more: bytes) -> bytes:
    """A PNG by the book, for what no library writes; `body` is deflated, `more` are chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [_PNG, chunk(b"IHDR", header), *more, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    )
