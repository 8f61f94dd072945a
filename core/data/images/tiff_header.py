"""First directory of a TIFF file, checked before a decoder believes it (TIFF 6.0, BigTIFF)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from core.data.images.size_limit import BYTES, check_size, max_pixels


class Tag(IntEnum):
    """Tags that pixels depend on (TIFF 6.0, its technical note 2, libtiff)."""

    KIND = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    COUNTS = 279
    PLANAR = 284
    FAX_OPTIONS = 292
    PREDICTOR = 317
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    EXTRA = 338
    FORMAT = 339
    JPEG_TABLES = 347
    SUBSAMPLING = 530
    DEPTH = 32997


# of these a decoder needs more values than the first, but no more than so many
_SEVERAL = {Tag.EXTRA: 2**16, Tag.JPEG_TABLES: 2**12, Tag.SUBSAMPLING: 2, Tag.PALETTE: 3 * 2**16}
# what decides nothing about the samples, or is given anew
_APART = {Tag.KIND, Tag.ORIENTATION, Tag.PALETTE, Tag.DEPTH, Tag.TILE_OFFSETS, Tag.TILE_COUNTS}
_KINDS = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}
_CODES = {1: 1, 2: 3, 4: 4, 8: 16}
_MOST_ENTRIES, _MOST_PIECES = 2**12, 2**17
# bits of KIND
_SMALLER, _MASK = 1, 4
_DAMAGED = "the file is cut short or damaged"


@dataclass(frozen=True)
class TiffHeader:
    """Tags that pixels depend on, and the places of the strips or tiles ("pieces").

    `tags` maps a tag to its values (N,), unsigned. `offsets` and `counts` (P,) are the pieces'
    places and lengths in bytes, maybe outside of the file; they cover the image once a plane.
    """

    order: str
    tags: dict[Tag, np.ndarray]
    offsets: list[int]
    counts: list[int]
    columns: int
    rows: int
    planes: int

    def get(self, tag: Tag, default: int) -> int:
        """First value of a tag."""
        return _first(self.tags, tag, default)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.get(Tag.WIDTH, 0), self.get(Tag.HEIGHT, 0)

    def bare(self, height: int, compression: int) -> bytes:
        """BigTIFF of these tags alone, without the pieces, for an image of another `height` and
        `compression`."""
        tags: dict[Tag, np.ndarray] = {
            tag: values if tag in _SEVERAL else values[:1]
            for tag, values in self.tags.items()
            if tag not in _APART
        }
        if Tag.EXTRA in tags:
            # tifffile knows 0 to 2, and logs others
            tags[Tag.EXTRA] = tags[Tag.EXTRA].copy()
            tags[Tag.EXTRA][tags[Tag.EXTRA] > 2] = 0
        for tag, new in (
            (Tag.HEIGHT, [height]),
            (Tag.COMPRESSION, [compression]),
            (Tag.OFFSETS, self.offsets),
            (Tag.COUNTS, self.counts),
        ):
            tags[tag] = np.array(new, f"{self.order}u8")
        entries, rest, start = b"", b"", 16 + 8 + 20 * len(tags) + 8
        for tag, values in sorted(tags.items()):
            content = values.tobytes().ljust(8, b"\0")
            if len(content) > 8:
                content, rest = struct.pack(f"{self.order}Q", start + len(rest)), rest + content
            code = _CODES[values.itemsize]
            entries += struct.pack(f"{self.order}HHQ", tag, code, len(values)) + content
        head = struct.pack(f"{self.order}HHHQQ", 43, 8, 0, 16, len(tags))
        return (b"II" if self.order == "<" else b"MM") + head + entries + bytes(8) + rest


def read_header(data: bytes) -> TiffHeader:
    """Header of the first image of a TIFF.

    Raises ValueError, or struct.error, where it is damaged, claims more than `max_pixels` in the
    image or in its tiles, or has no place for each strip or tile.
    """
    order, tags = _read_tags(data)
    if not {Tag.WIDTH, Tag.HEIGHT} <= tags.keys():
        raise ValueError(_DAMAGED)
    width, height = _first(tags, Tag.WIDTH, 0), _first(tags, Tag.HEIGHT, 0)
    samples = _first(tags, Tag.SAMPLES, 1)
    pixel = samples * int(max(tags[Tag.BITS][:samples], default=1) if Tag.BITS in tags else 1) / 8
    check_size(width, height, pixel)
    if _first(tags, Tag.DEPTH, 1) > 1 or _first(tags, Tag.KIND, 0) & (_SMALLER | _MASK):
        raise ValueError(
            "it begins with a stack of slices, a thumbnail or a mask: save the X-ray as a file of "
            "its own"
        )
    columns, rows = width, min(_first(tags, Tag.ROWS, height), height)
    if Tag.TILE_WIDTH in tags:
        columns, rows = _first(tags, Tag.TILE_WIDTH, 0), _first(tags, Tag.TILE_HEIGHT, 0)
    if columns < 1 or rows < 1:
        raise ValueError(_DAMAGED)
    across, down = -(-width // columns), -(-height // rows)
    if Tag.TILE_WIDTH in tags:
        # decoders make room for whole tiles, however small the image is
        check_size(across * columns, down * rows, pixel)
    planes = samples if _first(tags, Tag.PLANAR, 1) == 2 else 1
    offsets, counts = _pieces(tags, across * down * planes, len(data))
    return TiffHeader(order, tags, offsets, counts, columns, rows, planes)


def _first(tags: dict[Tag, np.ndarray], tag: Tag, default: int) -> int:
    return int(tags[tag][0]) if tag in tags else default


def _read_tags(data: bytes) -> tuple[str, dict[Tag, np.ndarray]]:
    """Byte order, and the values of the known tags in the first directory."""
    order = "<" if data.startswith(b"II") else ">"
    place, offset, number = (8, "Q", "Q") if 43 in data[2:4] else (4, "I", "H")
    entry = struct.Struct(f"{order}HH{offset}{place}s")
    (start,) = struct.unpack_from(order + offset, data, place)
    if start > len(data):
        raise ValueError(_DAMAGED)
    (entries,) = struct.unpack_from(order + number, data, start)
    if entries > _MOST_ENTRIES:
        raise ValueError(f"its directory claims {entries:,} entries")
    start += struct.calcsize(order + number)
    tags: dict[Tag, np.ndarray] = {}
    for at in range(start, start + entries * entry.size, entry.size):
        code, kind, length, value = entry.unpack_from(data, at)
        if code not in Tag.__members__.values() or code in tags or not length:
            continue
        tag, values = Tag(code), np.dtype(order + _KINDS.get(kind, "V"))
        if length > _SEVERAL.get(tag, length) or kind not in _KINDS:
            raise ValueError(f"its tag {tag.name} is damaged")
        begin = at + entry.size - place
        if length * values.itemsize > place:
            (begin,) = struct.unpack(order + offset, value)
        if begin + length * values.itemsize > len(data):
            raise ValueError(_DAMAGED)
        tags[tag] = np.frombuffer(data, values, length, begin)
    if not any(data[start + entries * entry.size :][:place]):
        # the only image of a file, whatever it is called
        tags.pop(Tag.KIND, None)
    return order, tags


def _pieces(tags: dict[Tag, np.ndarray], number: int, size: int) -> tuple[list[int], list[int]]:
    """Offsets and lengths of `number` strips or tiles in a file of `size` bytes."""
    if number > _MOST_PIECES:
        raise ValueError(f"it is cut into {number:,} strips or tiles, more than {_MOST_PIECES:,}")
    offsets, counts = (
        tags.get(tile, tags.get(strip, np.zeros(0, int)))[:number].tolist()
        for tile, strip in ((Tag.TILE_OFFSETS, Tag.OFFSETS), (Tag.TILE_COUNTS, Tag.COUNTS))
    )
    if number == 1 and offsets and not any(counts):
        # old writers of one strip leave it out
        counts = [max(0, size - offsets[0])]
    if min(len(offsets), len(counts)) < number or 0 in offsets or 0 in counts:
        raise ValueError("some of its strips or tiles are missing")
    if sum(counts) > BYTES * max_pixels() + 2**24:
        raise ValueError("its strips or tiles claim more bytes than any image has")
    return offsets, counts
