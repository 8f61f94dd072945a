"""DICOM files from raw bytes, for content that no library writes."""

import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.utils import pack_bits

from tests.helpers.data.dicom_files import data_set, dicom
from tests.helpers.fuzz.image_files import DEEP, NOISE, saved

_LONG = ("OB", "OW", "OF", "SQ", "UN", "UT", "OD", "OL", "UC", "UR")
DEFLATED = "1.2.840.10008.1.2.1.99"
PIXELS = (0x7FE0, 0x0010)
_OPEN = 2**32 - 1


def element(tag: tuple[int, int], vr: str, data: bytes) -> bytes:
    """An element, explicit and little-endian."""
    data += b" " * (len(data) % 2)
    head = struct.pack("<HH", *tag) + vr.encode()
    length = struct.pack("<HI", 0, len(data)) if vr in _LONG else struct.pack("<H", len(data))
    return head + length + data


def wrapped(body: bytes, syntax: str = str(uid.ExplicitVRLittleEndian)) -> bytes:
    """A file with this data set."""
    meta = element((2, 0x10), "UI", syntax.encode())
    return bytes(128) + b"DICM" + element((2, 0), "UL", struct.pack("<I", len(meta))) + meta + body


def image(more: dict[tuple[int, int], tuple[str, bytes]] | None = None) -> dict[Any, Any]:
    """The elements of a 16-bit image, with `more` over them; an empty VR leaves one out."""
    plain = {
        (0x28, 2): ("US", struct.pack("<H", 1)),
        (0x28, 4): ("CS", b"MONOCHROME2"),
        (0x28, 0x10): ("US", struct.pack("<H", DEEP.shape[0])),
        (0x28, 0x11): ("US", struct.pack("<H", DEEP.shape[1])),
        (0x28, 0x100): ("US", struct.pack("<H", 16)),
        (0x28, 0x101): ("US", struct.pack("<H", 16)),
        (0x28, 0x102): ("US", struct.pack("<H", 15)),
        (0x28, 0x103): ("US", struct.pack("<H", 0)),
        PIXELS: ("OW", DEEP.astype("<u2").tobytes()),
    }
    return plain | (more or {})


def built(elements: dict[tuple[int, int], tuple[str, bytes]]) -> bytes:
    """A file of these elements."""
    parts = [element(tag, *elements[tag]) for tag in sorted(elements) if elements[tag][0]]
    return wrapped(b"".join(parts))


@cache
def sound_dicom() -> dict[str, bytes]:
    """Valid files by name."""
    # nothing is left to chance: the same number spoils the same byte
    made = partial(dicom, SOPInstanceUID="1.2.3")
    lut = np.arange(256, dtype=np.uint8)[::-1].tobytes()
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = lut
    bits: dict[str, Any] = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    bits["PixelData"] = pack_bits((NOISE > 127).astype(np.uint8), pad=True)
    colours = np.dstack([NOISE] * 3)
    halves = (DEEP >> 8).astype(np.uint8).tobytes(), DEEP.astype(np.uint8).tobytes()
    jpeg, jpeg2000 = saved(NOISE, "JPEG", quality=100), saved(NOISE, "JPEG2000", no_jp2=True)
    return {
        "8.dcm": made(NOISE),
        "16.dcm": made(DEEP),
        "signed.dcm": made((DEEP.astype(int) - 30000).astype(np.int16)),
        "inverse.dcm": made(NOISE, PhotometricInterpretation="MONOCHROME1"),
        "rgb.dcm": made(colours),
        "window.dcm": made(DEEP, WindowCenter=30000, WindowWidth=20000),
        "palette.dcm": made(NOISE, **palette),
        "1.dcm": made(NOISE, **bits),
        "implicit.dcm": made(NOISE, syntax=uid.ImplicitVRLittleEndian),
        "bare.dcm": data_set(made(NOISE, syntax=uid.ImplicitVRLittleEndian)),
        "bare 16.dcm": data_set(made(DEEP)),
        "deflated.dcm": made(NOISE, syntax=uid.DeflatedExplicitVRLittleEndian),
        "j2k.dcm": made(NOISE, jpeg2000, uid.JPEG2000Lossless),
        "jpeg.dcm": made(NOISE, jpeg, uid.JPEGBaseline8Bit),
        "rle.dcm": made(DEEP, rle(*halves), uid.RLELossless),
        "colour rle.dcm": made(colours, rle(*[NOISE.tobytes()] * 3), uid.RLELossless),
        "lossless.dcm": made(
            DEEP, bytes(imagecodecs.jpeg_encode(DEEP, lossless=True)), uid.JPEGLosslessSV1
        ),
        "jpeg-ls.dcm": made(DEEP, bytes(imagecodecs.jpegls_encode(DEEP)), uid.JPEGLSLossless),
        "colour j2k.dcm": made(
            *(colours, saved(colours, "JPEG2000", no_jp2=True), uid.JPEG2000Lossless),
            PhotometricInterpretation="YBR_RCT",
        ),
    }


def rle(*parts: bytes) -> bytes:
    """Segments of literal runs (PS3.5 G.3)."""
    segments = []
    for data in parts:
        runs = [data[start : start + 128] for start in range(0, len(data), 128)]
        segments.append(b"".join(bytes([len(run) - 1]) + run for run in runs))
    return _segments(segments)


def _segments(segments: list[bytes]) -> bytes:
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    head = struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments)))
    return head + b"".join(segments)


def _sequence(length: int, body: bytes = b"") -> bytes:
    return struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, length) + body


def _item(length: int, body: bytes = b"") -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length) + body


def items(count: int) -> bytes:
    """A sequence of so many empty items."""
    return _sequence(_OPEN) + _item(0) * count


def _nested(depth: int) -> bytes:
    """Sequences in sequences, with their lengths."""
    body = b""
    for _ in range(depth):
        item = _item(len(body), body)
        body = _sequence(len(item), item)
    return body


def _many(groups: range) -> bytes:
    return b"".join(element((g, e), "CS", b"x") for g in groups for e in range(16, 60_000))


def unwanted_dicom() -> dict[str, Callable[[], bytes]]:
    """Makers of hostile files by name: each must be refused, or read within the limits."""
    body = built(image())[len(wrapped(b"")) :]
    runs, empty = b"\x81\0", element((8, 8), "CS", b"")
    preamble = bytes(128) + b"DICM"

    def encapsulated(frame: bytes, side: int = 9_999) -> bytes:
        return dicom(NOISE, frame, uid.RLELossless, Rows=side, Columns=side, SOPInstanceUID="1.2")

    def deflated(content: bytes) -> bytes:
        return zlib.compress(content)[2:-4]

    made: dict[str, Callable[[], bytes]] = {
        "plain.dcm": lambda: wrapped(body),
        "deflated bomb.dcm": lambda: wrapped(deflated(bytes(2**30)), DEFLATED),
        "deflated bomb without length.dcm": lambda: (
            preamble + wrapped(b"", DEFLATED)[144:] + deflated(bytes(2**30))
        ),
        "deflated hidden.dcm": lambda: wrapped(deflated(body), DEFLATED),
        "deflated elements.dcm": lambda: wrapped(deflated(empty * 3_000_000 + body), DEFLATED),
        "runs.dcm": lambda: encapsulated(_segments([runs * 2**24])),
        "runs of one.dcm": lambda: encapsulated(_segments([b"\0\0" * 10_000_000])),
        "no ops.dcm": lambda: encapsulated(_segments([b"\x80" * 50_000_000])),
        "small runs.dcm": lambda: encapsulated(_segments([runs * 2**24]), 9),
        "segments.dcm": lambda: encapsulated(struct.pack("<16I", 2**31, *[64] * 15)),
        "nested.dcm": lambda: wrapped((_sequence(_OPEN) + _item(_OPEN)) * 10_000 + body),
        "nested whole.dcm": lambda: wrapped(_nested(5_000) + body),
        "deep.dcm": lambda: wrapped((_sequence(_OPEN) + _item(_OPEN)) * 1_000_000),
        "elements.dcm": lambda: wrapped(empty * 3_000_000 + body),
        "all elements.dcm": lambda: wrapped(_many(range(9, 0x28, 2)) + body),
        "bare elements.dcm": lambda: _many(range(8, 0x28, 2)) + body,
        "items.dcm": lambda: wrapped(items(3_000_000) + body),
        "implicit windows.dcm": lambda: wrapped(
            _implicit(0x28, 0x1050, b"1\\" * 20_000_000), str(uid.ImplicitVRLittleEndian)
        ),
        "fragments.dcm": lambda: _fragments(2_000_000),
        "private.dcm": lambda: wrapped(body, "1.2.3.4"),
        "no syntax.dcm": lambda: preamble + body,
    }
    for place in image():
        without, of_text = image({place: ("", b"")}), image({place: ("UT", b"\x1b[2J\n")})
        made[f"without {place[1]:x}.dcm"] = partial(built, without)
        made[f"of text {place[1]:x}.dcm"] = partial(built, of_text)
    return made


def _implicit(group: int, tag: int, data: bytes) -> bytes:
    """The data set of an image, its VRs left to the reader, with an element of that content."""
    elements = image() | {(group, tag): ("", data)}
    return b"".join(
        struct.pack("<HHI", *place, len(elements[place][1])) + elements[place][1]
        for place in sorted(elements)
    )


def _fragments(count: int) -> bytes:
    """Pixel data in so many pieces."""
    plain = image()
    del plain[PIXELS]
    head = built(plain).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    start = struct.pack("<HH2sHI", *PIXELS, b"OB", 0, 2**32 - 1) + b"\xfe\xff\0\xe0\0\0\0\0"
    return head + start + b"\xfe\xff\0\xe0\2\0\0\0\0\0" * count + b"\xfe\xff\xdd\xe0\0\0\0\0"
