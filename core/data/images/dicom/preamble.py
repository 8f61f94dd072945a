"""Recognition of DICOM by its first bytes, with and without a preamble.

A file of PS3.10 has a preamble, "DICM" and File Meta Information. Scanners and old archives also
write the bare data set, which pydicom reads by `force`, as it does any bytes: here it must begin
as a data set does.
"""

import struct

# PS3.10 7.1: 128 bytes of anything, then these
MAGIC, MAGIC_AT = b"DICM", 128
# what must be there to recognise a file
START = 1024

# value representations by the length of their length (PS3.5 7.1.2)
_OF_32_BITS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_OF_16_BITS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
# of the first element: meta information, identification, patient, acquisition, relation, image
_FIRST_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)
_LAST_GROUP = 0x7FE0
_UNDEFINED = 2**32 - 1


def has_preamble(data: bytes) -> bool:
    """Whether these bytes begin as PS3.10 says."""
    return data[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def is_dicom_data(data: bytes) -> bool:
    """Whether these bytes, at least `START` of a longer file, begin as a DICOM file does: with a
    preamble, or with the magic word, the meta information or the data set at once."""
    head = data[:START]
    return has_preamble(head) or head.startswith(MAGIC) or _bare_at(head) is not None


def with_preamble(data: bytes) -> bytes:
    """A DICOM file with its preamble and magic word, which are added where they are missing."""
    if has_preamble(data):
        return data
    if data.startswith(MAGIC):
        return bytes(MAGIC_AT) + data
    return bytes(MAGIC_AT) + MAGIC + data[_bare_at(data[:START]) or 0 :]


def _bare_at(head: bytes) -> int | None:
    """Where a data set begins: at once, or behind a blank preamble without magic word."""
    for place in (0, MAGIC_AT):
        blank = not any(head[:place])
        if blank and any(_begins_data_set(head[place:], order) for order in "<>"):
            return place
    return None


def _begins_data_set(head: bytes, order: str) -> bool:
    """Whether two elements in the order of their tags come first: explicit in either byte order, or
    implicit and little-endian (PS3.5 7.1)."""
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
