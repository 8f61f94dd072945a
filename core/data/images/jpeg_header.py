"""JPEG header checks before decoding, for files, TIFF and DICOM."""

import re
import struct
from collections.abc import Iterator

from core.data.images.size_limit import max_pixels

_START_OF_FRAME = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9
# next marker with a length, or the end marker; decoders skip bytes before it
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_MOST_SEGMENTS, _MOST_BETWEEN = 10_000, 2**20
# each scan is a pass over all pixels; progressive files have about ten
_MOST_SCANS = 30


def frame_size(data: bytes, most: int = _MOST_SEGMENTS) -> tuple[int, int, int, int]:
    """(width, height, bits, components) of a JPEG or JPEG-LS image (ITU-T T.81 B.2.2, T.87 C.2.2).

    Raises ValueError if there is no size before the first scan or more than `most` segments, and
    struct.error if it is truncated.
    """
    size, between = None, 0
    for code, place, skipped in _segments(data, most):
        between += skipped
        if code in (_START_OF_SCAN, _END) or between > _MOST_BETWEEN:
            break
        if code in _START_OF_FRAME:
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
            size = width, height, bits, components
    else:
        raise ValueError("the file is cut short or damaged")
    if between > _MOST_BETWEEN:
        raise ValueError(f"over {_MOST_BETWEEN:,} bytes of its header belong to no segment")
    if size is None:
        raise ValueError("its header is damaged")
    return size


def check_scans(data: bytes, pixels: int) -> None:
    """Raise ValueError if an image of `pixels` pixels has too many scans to decode quickly."""
    most = _MOST_SCANS * max_pixels() // max(1, pixels)
    # the quick count also finds what follows the image
    if data.count(bytes([0xFF, _START_OF_SCAN])) > most:
        scans = sum(code == _START_OF_SCAN for code, _, _ in _segments(data, _MOST_SEGMENTS))
        if scans > most:
            raise ValueError(f"it has {scans:,} scans of {pixels:,} pixels, which is too many")


def check_end(data: bytes) -> None:
    """Raise ValueError if no end marker follows the first scan; decoders would not notice."""
    for code, place, _ in _segments(data, _MOST_SEGMENTS):
        if code == _START_OF_SCAN:
            if data.find(bytes([0xFF, _END]), place) < 0:
                raise ValueError("the file is cut short")
            return


def _segments(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """(second byte of its marker, place, bytes skipped before it) of each segment to the end."""
    place = 2
    for _ in range(most):
        found = _MARKER.search(data, place)
        if found is None:
            return
        code = found[1][0]
        yield code, found.start(), found.start() - place
        if code == _END:
            return
        (length,) = struct.unpack_from(">H", data, found.end())
        place = found.end() + max(2, length)
    raise ValueError(f"it has more than {most:,} segments")
