"""Resource limits for DICOM parsing (pydicom trusts sizes in the header)."""

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from core.data.images.dicom.preamble import with_preamble
from core.data.images.size_limit import BYTES, max_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

# PS3.10 7.1: 128 bytes of anything, "DICM", and the File Meta Information, whose length stands in
# its first element
_META_AT = 144
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0"
# an element takes two or three
_MOST_READS = 2**18
# the longest that is read are look-up tables of 65,536 entries, of which a sequence holds several
_LONGEST_ELEMENT, _LONGEST_TABLES = 2**18, 2**22
_TABLES = (0x00283000, 0x00283010)
# a step of pydicom's own decoder of RLE each
_MOST_RUNS = 2**22


class BoundedReads:
    """A file for `pydicom.dcmread`, which raises ValueError where it has elements without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self._left = _MOST_READS

    def read(self, size: int = -1) -> bytes:
        """As that of the file, but never to its end: so pydicom would inflate it without bounds."""
        if size < 0:
            raise ValueError("its content is deflated, and its File Meta Information is damaged")
        self._left -= 1
        if self._left < 0:
            raise ValueError("its header has more elements than any image needs")
        return self._read(size)


def bounded(data: bytes) -> BoundedReads:
    """A DICOM file's bytes as `BoundedReads`, with a preamble; a deflated data set (PS3.5 A.5) is
    inflated, and ValueError raised where that comes to more than any image."""
    data = with_preamble(data)
    if not is_deflated(data):
        return BoundedReads(io.BytesIO(data))
    start = _META_AT + struct.unpack_from("<I", data, _META_AT - 4)[0]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    # something for the header
    limit = BYTES * max_pixels() + 2**20
    plain = inflater.decompress(data[start:], limit)
    if inflater.unconsumed_tail:
        raise ValueError(f"its deflated content comes to more than {limit:,} bytes")
    syntax = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_EXPLICIT)) + _EXPLICIT
    head = data[: _META_AT - 4] + struct.pack("<I", len(syntax)) + syntax
    return BoundedReads(io.BytesIO(head + plain))


def is_deflated(data: bytes) -> bool:
    """Whether the beginning of a DICOM file with a preamble says that the rest is deflated."""
    if len(data) < _META_AT:
        return False
    length = struct.unpack_from("<I", data, _META_AT - 4)[0]
    return _DEFLATED in data[_META_AT : _META_AT + length]


def check_lengths(dataset: "Dataset") -> None:
    """Raise ValueError where a describing element would become millions of Python objects."""
    for tag in dataset.keys():  # noqa: SIM118 - to iterate over the elements would convert them
        item: Any = dataset.get_item(tag)
        length = getattr(item, "length", 0)
        longest = _LONGEST_TABLES if tag in _TABLES else _LONGEST_ELEMENT
        if tag.group <= 0x28 and tag.group % 2 == 0 and length > longest:
            raise ValueError(f"its element {tag} has {length:,} bytes")


def check_runs(frame: bytes) -> None:
    """Raise ValueError where a frame in RLE (PS3.5 G.3) has more runs, or comes to more bytes, than
    any image."""
    place, total, end = 64, 0, len(frame)
    limit = BYTES * max_pixels()
    for _ in range(_MOST_RUNS):
        if place >= end or total > limit:
            break
        count = frame[place]
        if count < 128:
            total += count + 1
            place += count + 2
        else:
            total += (257 - count) % 129
            place += 2 if count > 128 else 1
    if place < end:
        raise ValueError("its compressed pixel data has more runs than any image")
