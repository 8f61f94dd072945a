"""DICOM detection by the first bytes, and resource limits for parsing (pydicom trusts the header).

PS3.10 files have a preamble, "DICM" and File Meta Information. Scanners and old archives also write
bare data sets. pydicom's `force` accepts any bytes, so here the first elements are checked.
"""

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from core.data.images.size_limit import BYTES, max_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

# bytes needed to detect DICOM
START = 1024
# PS3.10 7.1: 128 bytes of preamble, the magic bytes, then the File Meta Information, with its
# length in the first element
_MAGIC, _MAGIC_AT, _META_AT = b"DICM", 128, 144
# value representations with length fields of 32 and 16 bits (PS3.5 7.1.2)
_OF_32_BITS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_OF_16_BITS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# groups of a first element: meta information, identification, patient, acquisition, relation, image
_FIRST_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)
_LAST_GROUP = 0x7FE0
_UNDEFINED = 2**32 - 1

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0"
# an element takes two or three reads
_MOST_READS = 2**18
# the longest elements are look-up tables of 65,536 entries; a sequence may have several
_LONGEST_ELEMENT, _LONGEST_TABLES = 2**18, 2**22
_TABLES = (0x00283000, 0x00283010)


def has_preamble(data: bytes) -> bool:
    """Whether these bytes have a PS3.10 preamble."""
    return data.startswith(_MAGIC, _MAGIC_AT)


def is_dicom_data(data: bytes) -> bool:
    """Whether these bytes (at least `START` of a longer file) begin like DICOM.

    They begin with a preamble, or directly with the magic bytes, meta information or data set.
    """
    return has_preamble(data) or data.startswith(_MAGIC) or _bare_at(data[:START]) is not None


def _bare_at(head: bytes) -> int | None:
    """Offset of a bare data set: 0, or 128 after a blank preamble without magic bytes."""
    for place in (0, _MAGIC_AT):
        if not any(head[:place]) and any(_begins_data_set(head[place:], order) for order in "<>"):
            return place
    return None


def _begins_data_set(head: bytes, order: str) -> bool:
    """Whether the data begin with two elements in tag order, in any encoding of PS3.5 7.1."""
    place, before = 0, -1
    for number in range(2):
        if len(head) < place + 12:
            return False
        group, element, kind, short, long = struct.unpack_from(f"{order}HH2sHI", head, place)
        if kind in _OF_16_BITS:
            start, length = 8, short
        elif kind in _OF_32_BITS:
            start, length = 12, long
        elif order == "<":
            start, length = 8, struct.unpack_from("<I", head, place + 4)[0]
        else:
            return False
        tag = group << 16 | element
        known = group <= _LAST_GROUP if number else group in _FIRST_GROUPS
        if not known or tag <= before or (length == _UNDEFINED and not number):
            return False
        place, before = place + start + length, tag
    return True


class BoundedReads:
    """File for `pydicom.dcmread`. Raises ValueError if it has too many elements."""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self._left = _MOST_READS

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes; reading all is refused: pydicom would inflate it without limit."""
        if size < 0:
            raise ValueError("its content is deflated, and its File Meta Information is damaged")
        self._left -= 1
        if self._left < 0:
            raise ValueError("its header has more elements than any image needs")
        return self._read(size)


def bounded(data: bytes) -> BoundedReads:
    """Wrap the bytes of a DICOM file as `BoundedReads`, and add a missing preamble.

    A deflated data set (PS3.5 A.5) is inflated. Raises ValueError if it is larger than any image.
    """
    if data.startswith(_MAGIC):
        data = bytes(_MAGIC_AT) + data
    elif not has_preamble(data):
        data = bytes(_MAGIC_AT) + _MAGIC + data[_bare_at(data[:START]) or 0 :]
    if not is_deflated(data):
        return BoundedReads(io.BytesIO(data))
    start = _META_AT + struct.unpack_from("<I", data, _META_AT - 4)[0]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    # plus room for the header
    limit = BYTES * max_pixels() + 2**20
    plain = inflater.decompress(data[start:], limit)
    if inflater.unconsumed_tail:
        raise ValueError(f"its deflated content comes to more than {limit:,} bytes")
    syntax = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_EXPLICIT)) + _EXPLICIT
    head = data[: _META_AT - 4] + struct.pack("<I", len(syntax)) + syntax
    return BoundedReads(io.BytesIO(head + plain))


def is_deflated(data: bytes) -> bool:
    """Whether the data set of a DICOM file with a preamble is deflated."""
    length = int.from_bytes(data[_META_AT - 4 : _META_AT], "little")
    return _DEFLATED in data[_META_AT : _META_AT + length]


def check_lengths(dataset: "Dataset") -> None:
    """Raise ValueError if a header element would become millions of Python objects."""
    for tag in dataset.keys():  # noqa: SIM118 - iterating over the elements would convert them
        item: Any = dataset.get_item(tag)
        length = getattr(item, "length", 0)
        longest = _LONGEST_TABLES if tag in _TABLES else _LONGEST_ELEMENT
        if tag.group <= 0x28 and tag.group % 2 == 0 and length > longest:
            raise ValueError(f"its element {tag} has {length:,} bytes")
