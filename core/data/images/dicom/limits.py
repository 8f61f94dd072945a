"""Recognition of DICOM by its first bytes, and resource limits for parsing it.

A file of PS3.10 has a preamble, "DICM" and File Meta Information. Scanners and old archives also
write the bare data set, which pydicom reads by `force`, as it does any bytes: here it must begin
as a data set does. pydicom trusts sizes in the header.
"""

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from core.data.images.size_limit import BYTES, max_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

# what must be there to recognise a file
START = 1024
# PS3.10 7.1: 128 bytes of anything, these, and the File Meta Information, whose length stands in
# its first element
_MAGIC, _MAGIC_AT, _META_AT = b"DICM", 128, 144
# value representations by the length of their length (PS3.5 7.1.2)
_OF_32_BITS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_OF_16_BITS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# of the first element: meta information, identification, patient, acquisition, relation, image
_FIRST_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)
_LAST_GROUP = 0x7FE0
_UNDEFINED = 2**32 - 1

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0"
# an element takes two or three
_MOST_READS = 2**18
# the longest that is read are look-up tables of 65,536 entries, of which a sequence holds several
_LONGEST_ELEMENT, _LONGEST_TABLES = 2**18, 2**22
_TABLES = (0x00283000, 0x00283010)


def has_preamble(data: bytes) -> bool:
    """Whether these bytes begin as PS3.10 says."""
    return data.startswith(_MAGIC, _MAGIC_AT)


def is_dicom_data(data: bytes) -> bool:
    """Whether these bytes, at least `START` of a longer file, begin as a DICOM file does: with a
    preamble, or with the magic word, the meta information or the data set at once."""
    return has_preamble(data) or data.startswith(_MAGIC) or _bare_at(data[:START]) is not None


def _bare_at(head: bytes) -> int | None:
    """Where a data set begins: at once, or behind a blank preamble without magic word."""
    for place in (0, _MAGIC_AT):
        if not any(head[:place]) and any(_begins_data_set(head[place:], order) for order in "<>"):
            return place
    return None


def _begins_data_set(head: bytes, order: str) -> bool:
    """Whether two elements in the order of their tags come first, in any encoding of PS3.5 7.1."""
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
    if data.startswith(_MAGIC):
        data = bytes(_MAGIC_AT) + data
    elif not has_preamble(data):
        data = bytes(_MAGIC_AT) + _MAGIC + data[_bare_at(data[:START]) or 0 :]
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
    length = int.from_bytes(data[_META_AT - 4 : _META_AT], "little")
    return _DEFLATED in data[_META_AT : _META_AT + length]


def check_lengths(dataset: "Dataset") -> None:
    """Raise ValueError where a describing element would become millions of Python objects."""
    for tag in dataset.keys():  # noqa: SIM118 - to iterate over the elements would convert them
        item: Any = dataset.get_item(tag)
        length = getattr(item, "length", 0)
        longest = _LONGEST_TABLES if tag in _TABLES else _LONGEST_ELEMENT
        if tag.group <= 0x28 and tag.group % 2 == 0 and length > longest:
            raise ValueError(f"its element {tag} has {length:,} bytes")
