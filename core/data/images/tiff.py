"""Decoding of the first page of a TIFF to grey uint8, with tifffile and imagecodecs.

tifffile gets only the tags of `_MOST_VALUES`, without other pages, metadata and microscope formats.
The pieces (strips or tiles) are decoded one by one in this thread; each must be complete.
"""

import io
import struct
import zlib
from copy import copy
from typing import Any

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF, TiffFile, TiffPage, logger

from core.data.images.greyscale import to_grey8
from core.data.images.jpeg_header import check_end, check_scans, frame_size
from core.data.images.size_limit import BYTES, check_size, max_pixels

# warnings about unusual tags do not help the user
logger().disabled = True

_MOST_PIECES = 2**17
# tags that pixels depend on, and their maximum number of values
_MOST_VALUES = {
    **dict.fromkeys(("NewSubfileType", "ImageWidth", "ImageLength", "ImageDepth"), 1),
    **dict.fromkeys(("Compression", "PhotometricInterpretation", "Predictor", "T4Options"), 1),
    **dict.fromkeys(("FillOrder", "Orientation", "SamplesPerPixel", "PlanarConfiguration"), 1),
    **dict.fromkeys(("RowsPerStrip", "TileWidth", "TileLength"), 1),
    **dict.fromkeys(("StripOffsets", "StripByteCounts"), _MOST_PIECES),
    **dict.fromkeys(("TileOffsets", "TileByteCounts"), _MOST_PIECES),
    **dict.fromkeys(("BitsPerSample", "ExtraSamples", "SampleFormat"), 2**16),
    **{"ColorMap": 3 * 2**16, "JPEGTables": 2**12, "YCbCrSubSampling": 2},
}
_VALUE_SIZES = {3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_JPEG, _DEFLATE = COMPRESSION.JPEG, (8, 32946)
# also CCITT, LZW, PackBits, LZMA and Zstandard
_READ = {1, 2, 3, 4, 5, _JPEG, *_DEFLATE, 32773, 34925, 50000}
_COLOURS: dict[int, int] = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.YCBCR: 3,
}
_FEW_SEGMENTS, _MANY_SEGMENTS = 32, 10_000
_DAMAGED = "the file is cut short or damaged"


def decode(data: bytes) -> np.ndarray:
    """Decode the first image of a TIFF to grey, uint8 (H, W), and apply its Orientation.

    Unsigned samples of up to 8 bits keep their scale; others are windowed (`to_grey8`). Colour
    becomes luma; transparency and other extra samples are dropped. Raises ValueError or
    struct.error if it is damaged, too large or not supported.
    """
    page = _read_page(data)
    places = _find_pieces(page, len(data))
    _check_supported(page)
    # no variable for the samples, so that they are freed early
    grey = to_grey8(_to_colours(_read_samples(data, page, places), page))
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        grey = 255 - grey
    return np.ascontiguousarray(_orient(grey, page.tags.valueof("Orientation", 1)))


def _read_page(data: bytes) -> TiffPage:
    """First directory, with only the tags of `_MOST_VALUES`."""
    order = "<" if data.startswith(b"II") else ">"
    place, offset, number = (8, "Q", "Q") if 43 in data[2:4] else (4, "I", "H")
    entry = struct.Struct(f"{order}HH{offset}{place}s")
    (start,) = struct.unpack_from(order + offset, data, place)
    if start > len(data):
        raise ValueError(_DAMAGED)
    (entries,) = struct.unpack_from(order + number, data, start)
    if entries > 2**12:
        raise ValueError(f"its directory claims {entries:,} entries")
    first = start + struct.calcsize(order + number)
    end = first + entries * entry.size
    tags: dict[str, bytes] = {}
    for at in range(first, end, entry.size):
        code, kind, length, value = entry.unpack_from(data, at)
        name = TIFF.TAGS.get(int(code), "")
        if name not in _MOST_VALUES or name in tags or not length:
            continue
        if (kind, length) == (1, 1):
            # tifffile would return bytes
            kind, value = 3, struct.pack(f"{order}H", value[0])
        size = length * (1 if name == "JPEGTables" else _VALUE_SIZES.get(kind, 2**64))
        begin = struct.unpack(order + offset, value)[0] if size > place else 0
        if length > _MOST_VALUES[name] or begin + size > len(data):
            raise ValueError(f"the file is cut short, or its tag {name} is damaged")
        tags[name] = entry.pack(code, kind, length, value)
    if not any(data[end : end + place]):
        # a single image is accepted with any subfile type
        tags.pop("NewSubfileType", None)
    directory = struct.pack(order + number, len(tags)) + b"".join(tags.values()) + bytes(place)
    bare = b"".join([data[:start], directory, memoryview(data)[start + len(directory) :]])
    try:
        with io.BytesIO(bare) as stream, TiffFile(stream) as file:
            page = file.pages.first
            # read now, not at its first use
            page.tags.valueof("ColorMap")
    except Exception as error:
        raise ValueError("its tags are damaged, or its samples of several types") from error
    return page


def _piece_shape(page: TiffPage) -> tuple[int, int, int]:
    """Rows, columns and samples per pixel of a strip or tile."""
    samples = 1 if page.planarconfig == 2 else page.samplesperpixel
    if page.is_tiled:
        return page.tilelength, page.tilewidth, samples
    return page.rowsperstrip, page.imagewidth, samples


def _find_pieces(page: TiffPage, size: int) -> list[tuple[int, int]]:
    """Offset and length in bytes of each piece of a file of `size` bytes; not checked against it.

    Raises ValueError if one is missing, or the image or its tiles exceed `max_pixels`.
    """
    width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
    pixel = samples * int(np.max(page.bitspersample)) / 8
    check_size(width, height, pixel)
    if page.imagedepth > 1 or page.subfiletype & 5:
        raise ValueError(
            "it begins with a stack of slices, a thumbnail or a mask: save the X-ray as a separate "
            "file"
        )
    rows, columns, each = _piece_shape(page)
    if columns < 1 or rows < 1:
        raise ValueError(_DAMAGED)
    across, down = -(-width // columns), -(-height // rows)
    if page.is_tiled:
        # decoders allocate whole tiles, even for small images
        check_size(across * columns, down * rows, pixel)
    number = across * down * (samples // each)
    offsets, counts = (
        list(page.tags.valueof(f"Tile{what}") or page.tags.valueof(f"Strip{what}", ()))[:number]
        for what in ("Offsets", "ByteCounts")
    )
    if number == 1 and offsets and not any(counts):
        # old writers omit it for a single strip
        counts = [max(0, size - offsets[0])]
    if min(len(offsets), len(counts)) < number or 0 in offsets or 0 in counts:
        raise ValueError("some of its strips or tiles are missing")
    if sum(counts) > BYTES * max_pixels() + 2**24:
        raise ValueError("its strips or tiles claim more bytes than any image has")
    return list(zip(offsets, counts, strict=True))


def _check_supported(page: TiffPage) -> None:
    compression, photometric = page.compression, page.photometric
    if compression not in _READ:
        raise ValueError(
            f"its compression {_name(compression)} is not supported: save it again without "
            "compression, or with LZW or deflate"
        )
    if "PhotometricInterpretation" not in page.tags:
        raise ValueError("it has no PhotometricInterpretation (0 black or white): save it as PNG")
    if photometric not in _COLOURS:
        raise ValueError(
            f"its colour space {_name(photometric)} is not supported: save it as grey or RGB"
        )
    if page.samplesperpixel < _COLOURS[photometric]:
        raise ValueError(
            f"it has {page.samplesperpixel} samples a pixel, too few for its colour space "
            f"{_name(photometric)}"
        )
    if page.fillorder not in (1, 2) or page.planarconfig not in (1, 2):
        raise ValueError("its tag FillOrder or PlanarConfiguration is damaged")
    if isinstance(page.bitspersample, tuple):
        raise ValueError("its samples are of several sizes: save it as grey or RGB")
    if page.dtype is None or page.dtype.kind == "c":
        raise ValueError(
            f"its samples of {page.bitspersample} bits and type {_name(page.sampleformat)} are not "
            "supported: save it as whole numbers of 8 or 16 bits, or floats of 32 bits"
        )
    predictor = page.predictor
    if predictor not in (1, 2, 3) or (predictor > 1 and compression == COMPRESSION.NONE):
        # without compression, readers disagree on applying it
        raise ValueError(f"its predictor {predictor:d} is not supported: save it without one")
    if photometric == PHOTOMETRIC.YCBCR and page.is_subsampled and compression != _JPEG:
        raise ValueError("its colours are subsampled without JPEG: save it as grey or RGB")


def _name(value: Any) -> str:
    """Name and number of a tag value."""
    return f"{value.name} ({value:d})" if hasattr(value, "name") else str(value)


def _read_samples(data: bytes, page: TiffPage, places: list[tuple[int, int]]) -> np.ndarray:
    """Stored samples (H, W, S)."""
    rows, columns, each = _piece_shape(page)
    jpeg, deflated = page.compression == _JPEG, page.compression in _DEFLATE
    # uncompressed, a shorter piece may suffice
    may_be_cut = page.compression == COMPRESSION.NONE
    if deflated:
        page.compression = COMPRESSION.NONE
    page.is_jfif = data[places[0][0] + 6 :][:4] == b"JFIF"
    # some writers pad the last strip to the height of the others
    tall = copy(page)
    tall.shaped = (*page.shaped[:2], -(-page.imagelength // rows) * rows, *page.shaped[3:])
    planes = page.samplesperpixel // each
    pixels = np.zeros((planes, page.imagelength, page.imagewidth, each), page.dtype)
    view: Any = memoryview(data)  # slices without copies
    for index, (offset, count) in enumerate(places):
        piece = view[offset : offset + count]
        if len(piece) < count and not may_be_cut:
            raise ValueError("a strip or tile ends beyond the file, which is cut short or damaged")
        if jpeg:
            piece = bytes(piece)
            _check_jpeg(piece, page, len(places))
        if deflated:
            # inflated here, because imagecodecs rejects pieces with extra data
            inflater = zlib.decompressobj()
            piece = inflater.decompress(piece, rows * -(-columns * each * page.bitspersample // 8))
            # the checksum follows the last byte
            inflater.decompress(inflater.unconsumed_tail, 1)
        part, (plane, _, top, left, _) = _decode_piece(piece, index, page, tall)
        place = pixels[plane, top : top + part.shape[0], left : left + part.shape[1]]
        place[...] = part[: place.shape[0], : place.shape[1]]
    return np.moveaxis(pixels[..., 0], 0, -1) if planes > 1 else pixels[0]


def _decode_piece(
    piece: bytes, index: int, page: TiffPage, tall: TiffPage
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Samples of a strip or tile (h, w, S), and their place: (plane, depth, top, left, 0)."""
    try:
        try:
            part, place, _ = page.decode(piece, index, jpegtables=page.jpegtables)
        except Exception:
            part, place, _ = tall.decode(piece, index, jpegtables=page.jpegtables)
    # codecs raise any exception on damaged data
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(
            f"a strip or tile is cut short, damaged or of an unknown kind ({reason})"
        ) from error
    assert part is not None  # None only without data
    return part[0], place


def _check_jpeg(piece: bytes, page: TiffPage, pieces: int) -> None:
    """Raise ValueError if a piece (of `pieces`) differs from its header in size, or has no end."""
    # limits the total time for all pieces
    most = _FEW_SEGMENTS + _MANY_SEGMENTS // pieces
    width, height, bits, components = frame_size(piece, most)
    rows, columns, samples = _piece_shape(page)
    depth = page.bitspersample
    # a single strip may be padded to whole blocks
    more = 15 if not page.is_tiled and rows == page.imagelength else 0
    if (width, bits, components) != (columns, depth, samples) or height > rows + more:
        raise ValueError(
            f"a strip or tile of {columns:,} x {rows:,} pixels of {samples} x {depth} bits holds "
            f"{width:,} x {height:,} of {components} x {bits}"
        )
    # checked as if each piece had all pixels, which limits the total time
    check_scans(piece, page.imagewidth * page.imagelength)
    check_end(piece)


def _to_colours(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """Convert samples (H, W, S) to grey (H, W) or BGR (H, W, 3)."""
    photometric, bits = page.photometric, page.bitspersample
    if photometric == PHOTOMETRIC.PALETTE:
        return _look_up(samples[..., 0], page)
    if samples.dtype == bool or (samples.dtype == np.uint8 and bits < 8):
        scale = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
        samples = scale[samples.view(np.uint8)]
    # the first sample of YCbCr is luma; for JPEG, tifffile has converted it to RGB
    from_jpeg = page.compression == _JPEG and page.planarconfig == 1
    if photometric == PHOTOMETRIC.RGB or (photometric == PHOTOMETRIC.YCBCR and from_jpeg):
        return samples[..., 2::-1]
    return samples[..., 0]


def _look_up(indices: np.ndarray, page: TiffPage) -> np.ndarray:
    """Convert palette indices to grey, uint8 (H, W) (TIFF 6.0 section 5)."""
    palette = np.array(page.tags.valueof("ColorMap", ()))
    if indices.dtype.kind not in "bu" or palette.size != 3 * 2**page.bitspersample:
        raise ValueError("its palette is damaged")
    # 16 bits, but some writers use only the low 8
    colours = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)
    grey = to_grey8(colours.reshape(1, 3, -1).transpose(0, 2, 1)[..., ::-1])[0]
    return grey[indices.astype(np.uint16)]


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror pixels (H, W) by the tag Orientation (TIFF 6.0 section 8)."""
    if orientation in (5, 6, 7, 8):
        # transposed
        pixels, orientation = pixels.T, {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    down, across = (-1 if orientation in (3, 4) else 1), (-1 if orientation in (2, 3) else 1)
    return pixels[::down, ::across]
