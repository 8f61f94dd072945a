"""What the header of a JPEG says, in files and in DICOM, before a decoder believes it."""

import struct

from core.data.limit import max_pixels

_START_OF_FRAME = {0xFFF7, *range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}
_START_OF_SCAN, _END = 0xFFDA, 0xFFD9
# segments, and bytes that fill the room between them
_MOST_STEPS = 10_000
# each costs a pass over all pixels; progressive files have about ten
_MOST_SCANS = 30


def frame_size(data: bytes) -> tuple[int, int, int]:
    """(width, height, bits) of a JPEG or JPEG-LS image (ITU-T T.81 B.2.2, T.87 C.2.2), from which
    a decoder takes how much memory it wants.

    Raises ValueError where there is none before the first scan, or more than a header needs, and
    struct.error where it is cut short.
    """
    place, size = 2, None
    for _ in range(_MOST_STEPS):
        (marker,) = struct.unpack_from(">H", data, place)
        if marker < 0xFF01 or marker in (_START_OF_SCAN, _END):
            break
        if marker in _START_OF_FRAME:
            bits, height, width = struct.unpack_from(">BHH", data, place + 4)
            size = width, height, bits
        (length,) = struct.unpack_from(">H", data, place + 2)
        # any number of FF may precede a marker
        place += 1 if marker == 0xFFFF else 2 + length
    if size is None or marker not in (_START_OF_SCAN, _END):
        raise ValueError("its header is damaged")
    return size


def check_scans(data: bytes, pixels: int) -> None:
    """Raise ValueError where so many scans go over so many pixels that none would wait for it."""
    scans = data.count(_START_OF_SCAN.to_bytes(2, "big"))
    if scans * pixels > _MOST_SCANS * max_pixels():
        raise ValueError(f"it goes over its {pixels:,} pixels {scans:,} times")
