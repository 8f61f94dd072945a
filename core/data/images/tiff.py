"""TIFF → grey, uint8: a checked header, tifffile (with imagecodecs) for each strip or tile.

tifffile sees the checked tags alone (`TiffHeader.bare`): other pages, metadata and the dialects of
microscopes never reach it, so that it neither follows them nor logs what is odd about them. The
pieces are decoded one by one in this thread, and each must be there and whole.
"""

import io
import zlib
from enum import IntEnum
from typing import Any

import numpy as np
from tifffile import COMPRESSION as COMPRESSIONS
from tifffile import PHOTOMETRIC as PHOTOMETRICS
from tifffile import SAMPLEFORMAT, TiffFile, TiffPage

from core.data.images.greyscale import to_grey8
from core.data.images.jpeg_header import check_end, check_scans, frame_size
from core.data.images.tiff_header import Tag, TiffHeader, read_header

_NONE, _JPEG, _DEFLATE = 1, 7, (8, 32946)
# beside CCITT, LZW, PackBits, LZMA, Zstandard
_READ = {_NONE, 2, 3, 4, 5, _JPEG, *_DEFLATE, 32773, 34925, 50000}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _INDEXED, _YCBCR = 0, 1, 2, 3, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _INDEXED: 1, _YCBCR: 3}
_FEW_SEGMENTS, _MANY_SEGMENTS = 32, 10_000


def decode(data: bytes) -> np.ndarray:
    """First image of a TIFF as grey, uint8 (H, W), upright by its Orientation.

    Unsigned samples of up to 8 bits keep their scale, all others are windowed (`to_grey8`). Colour
    becomes luma; transparency and other extra samples are dropped. Raises ValueError for what is
    damaged or not supported, with its name.
    """
    header = read_header(data)
    _check_supported(header)
    # no name for what is read: it can go as soon as it is grey
    grey = to_grey8(_to_colours(_read_samples(data, header), header))
    if header.get(Tag.PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return np.ascontiguousarray(_upright(grey, header.get(Tag.ORIENTATION, 1)))


def _check_supported(header: TiffHeader) -> None:
    compression, photometric = header.get(Tag.COMPRESSION, 1), header.get(Tag.PHOTOMETRIC, -1)
    if compression not in _READ:
        raise ValueError(
            f"its compression {_name(COMPRESSIONS, compression)} is not supported: save it again "
            "without compression, or with LZW or deflate"
        )
    if photometric == -1:
        raise ValueError("it does not say whether 0 is black or white: save it again, as PNG")
    if photometric not in _COLOURS:
        raise ValueError(
            f"its colour space {_name(PHOTOMETRICS, photometric)} is not supported: save it as "
            "grey or RGB"
        )
    samples = header.get(Tag.SAMPLES, 1)
    if samples < _COLOURS[photometric]:
        raise ValueError(
            f"it has {samples} samples a pixel, too few for its colour space "
            f"{_name(PHOTOMETRICS, photometric)}"
        )
    for tag, most in ((Tag.FILL_ORDER, 2), (Tag.PLANAR, 2), (Tag.FORMAT, 6)):
        if not 1 <= header.get(tag, 1) <= most:
            raise ValueError(f"its tag {tag.name} is damaged")
    for tag, what in ((Tag.BITS, "sizes"), (Tag.FORMAT, "types")):
        if len(set(header.tags.get(tag, np.zeros(1, int))[:samples].tolist())) > 1:
            raise ValueError(f"its samples are of several {what}: save it as grey or RGB")
    predictor = header.get(Tag.PREDICTOR, 1)
    if predictor not in (1, 2, 3) or (predictor > 1 and compression == _NONE):
        # without compression some readers apply it and others do not
        raise ValueError(f"its predictor {predictor} is not supported: save it again without one")
    subsampling = header.tags.get(Tag.SUBSAMPLING, np.array([2, 2])).tolist()
    if photometric == _YCBCR and compression != _JPEG and subsampling[:2] != [1, 1]:
        raise ValueError("its colours are subsampled without JPEG: save it as grey or RGB")


def _name(names: type[IntEnum], code: int) -> str:
    """Name and number of a value of a tag."""
    return f"{names(code).name} ({code})" if code in names.__members__.values() else str(code)


def _read_samples(data: bytes, header: TiffHeader) -> np.ndarray:
    """Samples (H, W, S) as they are stored."""
    (width, height), start = header.size, header.offsets[0]
    # some writers fill the last strip up to the height of the others
    heights = height, -(-height // header.rows) * header.rows
    page, tall = (_page(header, rows, data[start : start + 10]) for rows in heights)
    if page.dtype is None or page.dtype.kind == "c":
        raise ValueError(
            f"its samples of {page.bitspersample} bits and type "
            f"{_name(SAMPLEFORMAT, page.sampleformat)} are not supported: save it as whole numbers "
            "of 8 or 16 bits, or floats of 32 bits"
        )
    each = header.get(Tag.SAMPLES, 1) // header.planes
    pixels = np.zeros((header.planes, height, width, each), page.dtype)
    compression = header.get(Tag.COMPRESSION, _NONE)
    view: Any = memoryview(data)  # of which a slice is no copy
    for index, (offset, count) in enumerate(zip(header.offsets, header.counts, strict=True)):
        piece = view[offset : offset + count]
        # uncompressed, what is there may be enough
        if compression != _NONE and len(piece) < count:
            raise ValueError("a strip or tile ends beyond the file, which is cut short or damaged")
        if compression == _JPEG:
            piece = bytes(piece)
            _check_jpeg(piece, header, each)
        if compression in _DEFLATE:
            row = -(-header.columns * each * header.get(Tag.BITS, 1) // 8)
            piece = _inflate(piece, header.rows * row)
        part, (plane, _, top, left, _) = _decode_piece(piece, index, page, tall)
        place = pixels[plane, top : top + part.shape[0], left : left + part.shape[1]]
        place[...] = part[: place.shape[0], : place.shape[1]]
    return np.moveaxis(pixels[..., 0], 0, -1) if header.planes > 1 else pixels[0]


def _page(header: TiffHeader, height: int, first: bytes) -> TiffPage:
    """A header as tifffile has it; `first` bytes of the first piece tell JPEG's colour space."""
    compression = header.get(Tag.COMPRESSION, _NONE)
    bare = header.bare(height, _NONE if compression in _DEFLATE else compression)
    with TiffFile(io.BytesIO(bare)) as file:
        page = file.pages.first
    page.is_jfif = first[6:10] == b"JFIF"
    return page


def _inflate(piece: bytes, most: int) -> bytes:
    """At most so many bytes of a deflated strip or tile: imagecodecs refuses one that has more."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(piece, most)
    # its checksum comes behind the last byte
    inflater.decompress(inflater.unconsumed_tail, 1)
    return found


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


def _check_jpeg(piece: bytes, header: TiffHeader, samples: int) -> None:
    """Raise ValueError where a strip or tile is larger than the header claims, or has no end."""
    # together they may have as many segments as seconds allow
    most = _FEW_SEGMENTS + _MANY_SEGMENTS // len(header.offsets)
    width, height, bits, components = frame_size(piece, most)
    rows, depth = header.rows, header.get(Tag.BITS, 1)
    if Tag.TILE_WIDTH not in header.tags and rows == header.size[1]:
        # one strip may be filled up to whole blocks
        rows += 15
    found, claimed = (width, bits, components), (header.columns, depth, samples)
    if found != claimed or height > rows:
        raise ValueError(
            f"a strip or tile of {header.columns:,} x {header.rows:,} pixels of {samples} x "
            f"{depth} bits holds {width:,} x {height:,} of {components} x {bits}"
        )
    # as if each went over the whole image: together they then take no longer
    check_scans(piece, header.size[0] * header.size[1])
    check_end(piece)


def _to_colours(samples: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Samples (H, W, S) as grey (H, W) or blue-green-red (H, W, 3)."""
    photometric, bits = header.get(Tag.PHOTOMETRIC, 1), header.get(Tag.BITS, 1)
    jpeg = header.get(Tag.COMPRESSION, _NONE) == _JPEG
    if photometric == _INDEXED:
        return _look_up(samples[..., 0], header)
    if samples.dtype == bool or (samples.dtype == np.uint8 and bits < 8):
        scale = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
        samples = scale[samples.view(np.uint8)]
    if photometric == _RGB or (photometric == _YCBCR and jpeg and header.planes == 1):
        return samples[..., 2::-1]
    # of YCbCr the first sample is the luma; with JPEG tifffile has made RGB of it
    return samples[..., 0]


def _look_up(indices: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Colours of a palette (TIFF 6.0 section 5) as grey, uint8 (H, W)."""
    palette = header.tags.get(Tag.PALETTE, np.zeros(0, int))
    if indices.dtype.kind not in "bu" or len(palette) != 3 * 2 ** header.get(Tag.BITS, 1):
        raise ValueError("its palette is damaged")
    # 16 bits, of which some writers use the low 8 alone
    colours = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)
    return to_grey8(colours.reshape(1, 3, -1).transpose(0, 2, 1)[..., ::-1])[0][
        indices.astype(np.uint16)
    ]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W) turned by the tag Orientation (TIFF 6.0 section 8)."""
    if orientation in (5, 6, 7, 8):
        # rows and columns change places
        pixels, orientation = pixels.T, {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    down, across = (-1 if orientation in (3, 4) else 1), (-1 if orientation in (2, 3) else 1)
    return pixels[::down, ::across]
