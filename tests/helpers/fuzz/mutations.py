"""Reproducible corruption of files: one seed, one corruption."""

import re
import struct
import zlib

import numpy as np

# what sizes and offsets overflow at
_EXTREMES = [
    *(b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\x7f"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
    *(b"\x80\0\0\0", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8, b"\0\0\0\0\0\0\xf0\x7f"),
]
# what has a meaning to a reader of texts, a terminal, a shell or a spreadsheet
_WORDS = [
    *(b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc3", b" "),
    *(b"\t", b"=cmd|' /C calc'!A0", b"+1", b"-1", b"1e400", b"-0", b"nan", b"inf", b"1_000"),
    *("\uff11".encode(), b"0x1", b"1.0 ", b"True", b"NA", b"null", b"007", "e\u0301".encode()),
    *("\u202egnp.".encode(), b"\x1b[2J", b"\x1b]0;x\x07", "\u2028".encode(), b"..", b"'", b"|"),
    *(b"../../etc/passwd", b"/etc/passwd", b"~", b"$HOME", b"C:\\", b"file:///etc/passwd", b"\\"),
    *(b"http://localhost/", b"|cmd", b"$(touch x)", b"x" * 5000, b"a/", b"<script>", b"{{7*7}}"),
    *(b"[", b"]", b"{", b"}", b":", b"9" * 5000, b"--overwrite", b"\\ud800", b"['a', 'b']"),
    *(b"[" * 2000, b"%s%n", b"$\\frac$", b"ImageID", b"PatientID"),
]
_PNG = b"\x89PNG\r\n\x1a\n"


def spoil(data: bytes, number: int, *, text: bool = False, reach: int | None = None) -> bytes:
    """`data` with one to four changes within its first `reach` bytes; as it is with number 0.

    Of a text, odd numbers replace one cell or value alone.
    """
    if not number:
        return data
    random = np.random.default_rng([number, len(data)])
    if text and number % 2:
        return _with_other_cell(data, random)
    for _ in range(int(random.choice([1, 1, 2, 4]))):
        tokens = _WORDS if text else _EXTREMES
        data = _change(data, random, tokens, min(reach or len(data), len(data)))
    if text and random.random() < 0.05:
        kind = ("utf-16", "utf-16-le", "latin-1", "shift-jis")[random.integers(4)]
        return data.decode(errors="replace").encode(kind, "ignore")
    # behind a wrong checksum nothing would be reached
    return with_checksums(data) if data.startswith(_PNG) and random.random() < 0.8 else data


def _with_other_cell(data: bytes, random: np.random.Generator) -> bytes:
    """`data` with a cell or value replaced, to reach checks behind the first one."""
    parts = re.split(rb"([,\n:{}\[\]])", data)
    whole = [one for one in (*_WORDS, *parts) if not re.search(rb'[,\n\r"\0\xff]', one)]
    parts[random.integers(len(parts) // 2 + 1) * 2] = whole[random.integers(len(whole))]
    return b"".join(parts)


def _change(data: bytes, random: np.random.Generator, tokens: list[bytes], reach: int) -> bytes:
    place = int(random.integers(max(reach, 1)))
    end = place + int(random.integers(1, 32))
    token = tokens[random.integers(len(tokens))]
    kind = random.integers(7)
    if kind == 0:
        return flipped(data, place, 1 << int(random.integers(8)))
    if kind == 1:
        return data[:place] + random.bytes(1) + data[place + 1 :]
    if kind == 2:
        return data[:place] + token + data[place + len(token) :]
    if kind == 3:
        return data[:place] + token + data[place:]
    if kind == 4:
        return data[:place] + data[end:]
    if kind == 5:
        return data[:end] + data[place:]
    return data[:place] + random.bytes(end - place) + data[place:]


def flipped(data: bytes, place: int, mask: int) -> bytes:
    """`data` with the bits of `mask` of one byte flipped."""
    changed = bytearray(data)
    changed[place : place + 1] = bytes(byte ^ mask for byte in changed[place : place + 1])
    return bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """The PNG with recomputed checksums of its chunks."""
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
    """PNG from raw parts, for content that no library writes; `body` is deflated."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [_PNG, chunk(b"IHDR", header), *more, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    )
