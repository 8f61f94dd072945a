"""First page of a TIFF → grey, uint8: tifffile (with imagecodecs) for its tags, strips and tiles.

tifffile sees the tags of `_MOST_VALUES` alone: other pages, metadata and the dialects of
microscopes never reach it. The pieces (strips or tiles) are decoded one by one in this thread, and
each must be there and whole.
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

# odd tags are no news to the user
logger().disabled = True

_MOST_PIECES = 2**17
# the tags that pixels depend on, and how many values they may have
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
# beside CCITT, LZW, PackBits, LZMA, Zstandard
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
    """First image of a TIFF as grey, uint8 (H, W), upright by its Orientation.

    Unsigned samples of up to 8 bits keep their scale, all others are windowed (`to_grey8`). Colour
    becomes luma; transparency and other extra samples are dropped. Raises ValueError, or
    struct.error, for what is damaged, too large or not supported, with its name.
    """
    page = _read_page(data)
    places = _find_pieces(page, len(data))
    _check_supported(page)
    # no name for what is read: it can go as soon as it is grey
    grey = to_grey8(_to_colours(_read_samples(data, page, places), page))
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        grey = 255 - grey
    return np.ascontiguousarray(_upright(grey, page.tags.valueof("Orientation", 1)))


def _read_page(data: bytes) -> TiffPage:
    """First directory, with the tags of `_MOST_VALUES` alone."""
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
    kept: dict[str, bytes] = {}
    for at in range(first, end, entry.size):
        code, kind, length, value = entry.unpack_from(data, at)
        name = TIFF.TAGS.get(int(code), "")
        if name not in _MOST_VALUES or name in kept or not length:
            continue
        if (kind, length) == (1, 1):
            # of which tifffile would make bytes
            kind, value = 3, struct.pack(f"{order}H", value[0])
        size = length * (1 if name == "JPEGTables" else _VALUE_SIZES.get(kind, 2**64))
        begin = struct.unpack(order + offset, value)[0] if size > place else 0
        if length > _MOST_VALUES[name] or begin + size > len(data):
            raise ValueError(f"the file is cut short, or its tag {name} is damaged")
        kept[name] = entry.pack(code, kind, length, value)
    if not any(data[end : end + place]):
        # the only image of a file, whatever it is called
        kept.pop("NewSubfileType", None)
    directory = struct.pack(order + number, len(kept)) + b"".join(kept.values()) + bytes(place)
    bare = b"".join([data[:start], directory, memoryview(data)[start + len(directory) :]])
    try:
        with io.BytesIO(bare) as stream, TiffFile(stream) as file:
            page = file.pages.first
            # else it would be read at its first use
            page.tags.valueof("ColorMap")
    except Exception as error:
        raise ValueError("its tags are damaged, or its samples of several types") from error
    return page


def _piece_shape(page: TiffPage) -> tuple[int, int, int]:
    """Rows, columns and samples a pixel of a strip or tile."""
    samples = 1 if page.planarconfig == 2 else page.samplesperpixel
    if page.is_tiled:
        return page.tilelength, page.tilewidth, samples
    return page.rowsperstrip, page.imagewidth, samples


def _find_pieces(page: TiffPage, size: int) -> list[tuple[int, int]]:
    """Place and length in bytes of each piece in a file of `size` bytes, maybe outside of it;
    ValueError where one is missing, or the image or its tiles are larger than `max_pixels`."""
    width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
    pixel = samples * int(np.max(page.bitspersample)) / 8
    check_size(width, height, pixel)
    if page.imagedepth > 1 or page.subfiletype & 5:
        raise ValueError(
            "it begins with a stack of slices, a thumbnail or a mask: save the X-ray as a file of "
            "its own"
        )
    rows, columns, each = _piece_shape(page)
    if columns < 1 or rows < 1:
        raise ValueError(_DAMAGED)
    across, down = -(-width // columns), -(-height // rows)
    if page.is_tiled:
        # decoders make room for whole tiles, however small the image is
        check_size(across * columns, down * rows, pixel)
    number = across * down * (samples // each)
    offsets, counts = (
        list(page.tags.valueof(f"Tile{what}") or page.tags.valueof(f"Strip{what}", ()))[:number]
        for what in ("Offsets", "ByteCounts")
    )
    if number == 1 and offsets and not any(counts):
        # old writers of one strip leave it out
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
        raise ValueError("it does not say whether 0 is black or white: save it again, as PNG")
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
        # without compression some readers apply it and others do not
        raise ValueError(f"its predictor {predictor:d} is not supported: save it without one")
    if photometric == PHOTOMETRIC.YCBCR and page.is_subsampled and compression != _JPEG:
        raise ValueError("its colours are subsampled without JPEG: save it as grey or RGB")


def _name(value: Any) -> str:
    """Name and number of a value of a tag."""
    return f"{value.name} ({value:d})" if hasattr(value, "name") else str(value)


def _read_samples(data: bytes, page: TiffPage, places: list[tuple[int, int]]) -> np.ndarray:
    """Samples (H, W, S) as they are stored."""
    rows, columns, each = _piece_shape(page)
    jpeg, deflated = page.compression == _JPEG, page.compression in _DEFLATE
    # uncompressed, what is there may be enough
    may_be_cut = page.compression == COMPRESSION.NONE
    if deflated:
        page.compression = COMPRESSION.NONE
    page.is_jfif = data[places[0][0] + 6 :][:4] == b"JFIF"
    # some writers fill the last strip up to the height of the others
    tall = copy(page)
    tall.shaped = (*page.shaped[:2], -(-page.imagelength // rows) * rows, *page.shaped[3:])
    planes = page.samplesperpixel // each
    pixels = np.zeros((planes, page.imagelength, page.imagewidth, each), page.dtype)
    view: Any = memoryview(data)  # of which a slice is no copy
    for index, (offset, count) in enumerate(places):
        piece = view[offset : offset + count]
        if len(piece) < count and not may_be_cut:
            raise ValueError("a strip or tile ends beyond the file, which is cut short or damaged")
        if jpeg:
            piece = bytes(piece)
            _check_jpeg(piece, page, len(places))
        if deflated:
            # here, as imagecodecs refuses a piece that has more
            inflater = zlib.decompressobj()
            piece = inflater.decompress(piece, rows * -(-columns * each * page.bitspersample // 8))
            # its checksum comes behind the last byte
            inflater.decompress(inflater.unconsumed_tail, 1)
        part, (plane, _, top, left, _) = _decode_piece(piece, index, page, tall)
        place = pixels[plane, top : top + part.shape[0], left : left + part.shape[1]]
        place[...] = part[: place.shape[0], : place.shape[1]]
    return np.moveaxis(pixels[..., 0], 0, -1) if planes > 1 else pixels[0]


def _decode_piece(
    piece: bytes, index: int, page: TiffPage, tall: TiffPage
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Samples of a strip or tile (h, w, S), and where they belong: (plane, depth, top, left, 0)."""
    try:
        try:
            part, place, _ = page.decode(piece, index, jpegtables=page.jpegtables)
        except Exception:
            part, place, _ = tall.decode(piece, index, jpegtables=page.jpegtables)
    # codecs raise about anything on damaged data
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(
            f"a strip or tile is cut short, damaged or of an unknown kind ({reason})"
        ) from error
    assert part is not None  # as it is for no piece alone
    return part[0], place


def _check_jpeg(piece: bytes, page: TiffPage, pieces: int) -> None:
    """Raise ValueError where one of `pieces` is larger than the header claims, or has no end."""
    # together they may have as many segments as seconds allow
    most = _FEW_SEGMENTS + _MANY_SEGMENTS // pieces
    width, height, bits, components = frame_size(piece, most)
    rows, columns, samples = _piece_shape(page)
    depth = page.bitspersample
    # one strip may be filled up to whole blocks
    more = 15 if not page.is_tiled and rows == page.imagelength else 0
    if (width, bits, components) != (columns, depth, samples) or height > rows + more:
        raise ValueError(
            f"a strip or tile of {columns:,} x {rows:,} pixels of {samples} x {depth} bits holds "
            f"{width:,} x {height:,} of {components} x {bits}"
        )
    # as if each went over the whole image: together they then take no longer
    check_scans(piece, page.imagewidth * page.imagelength)
    check_end(piece)


def _to_colours(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """Samples (H, W, S) as grey (H, W) or blue-green-red (H, W, 3)."""
    photometric, bits = page.photometric, page.bitspersample
    if photometric == PHOTOMETRIC.PALETTE:
        return _look_up(samples[..., 0], page)
    if samples.dtype == bool or (samples.dtype == np.uint8 and bits < 8):
        scale = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
        samples = scale[samples.view(np.uint8)]
    # of YCbCr the first sample is the luma; with JPEG tifffile has made RGB of it
    from_jpeg = page.compression == _JPEG and page.planarconfig == 1
    if photometric == PHOTOMETRIC.RGB or (photometric == PHOTOMETRIC.YCBCR and from_jpeg):
        return samples[..., 2::-1]
    return samples[..., 0]


def _look_up(indices: np.ndarray, page: TiffPage) -> np.ndarray:
    """Colours of a palette (TIFF 6.0 section 5) as grey, uint8 (H, W)."""
    palette = np.array(page.tags.valueof("ColorMap", ()))
    if indices.dtype.kind not in "bu" or palette.size != 3 * 2**page.bitspersample:
        raise ValueError("its palette is damaged")
    # 16 bits, of which some writers use the low 8 alone
    colours = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)
    grey = to_grey8(colours.reshape(1, 3, -1).transpose(0, 2, 1)[..., ::-1])[0]
    return grey[indices.astype(np.uint16)]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W) turned by the tag Orientation (TIFF 6.0 section 8)."""
    if orientation in (5, 6, 7, 8):
        # rows and columns change places
        pixels, orientation = pixels.T, {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    down, across = (-1 if orientation in (3, 4) else 1), (-1 if orientation in (2, 3) else 1)
    return pixels[::down, ::across]
