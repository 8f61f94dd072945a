"""Decoding of PNG, JPEG, TIFF and DICOM to one grey channel of 8 bits; incomplete files are errors.

Each format uses the decoder that is strict with it (opencv 5.0, Pillow 13.0, tifffile 2026.3):
Pillow accepts a PNG with rows missing and reduces TIFFs of 16 bits to 8; cv2 accepts damaged TIFFs,
reads separate planes of 16 bits as uninitialised memory and, before 5.0, truncated JPEGs.
"""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from core.data.images.dicom.header import require_pydicom
from core.data.images.dicom.limits import is_dicom_data
from core.data.images.greyscale import to_grey8
from core.data.images.jpeg_header import check_end, check_scans, frame_size
from core.data.images.size_limit import BYTES, check_size, max_pixels
from core.errors import UserError, format_size
from core.io.untrusted_files import check_regular
from core.runtime.worker_failures import is_shortage

# decoder warnings are part of the error message, or irrelevant to the user
warnings.filterwarnings("ignore", module=r"PIL\.")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# samples per pixel by colour type (PNG, table 11.1)
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_CHUNKS = 2**18
# bytes that inflate within seconds, and the maximum compression ratio of deflate
_SOON, _MOST_INFLATED = 2**33, 1032


def read_image(path: str | Path) -> np.ndarray:
    """Decode a file to grey, uint8 (H, W). TIFF orientation is applied, EXIF orientation is not.

    8-bit levels are unchanged; others (16 bits, 32-bit integers, floats) are scaled so that the
    percentiles `greyscale.WINDOW` become 0 and 255; DICOM uses its window. Colour becomes luma,
    transparency is dropped. Raises UserError with the file name if it is missing, empty, truncated,
    damaged, larger than `max_pixels`, or not PNG, JPEG, TIFF or DICOM.
    """
    with _raise_read_errors(str(path)):
        return _decode(_read_bytes(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """`read_image` for the content of a file: uint8 (H, W); `name` is used in error messages.

    Raises UserError as `read_image` does.
    """
    with _raise_read_errors(name):
        return _decode(data)


@contextmanager
def _raise_read_errors(name: str) -> Iterator[None]:
    """Raise errors of decoders as UserError with the image's name."""
    max_pixels()  # first, because an invalid limit is not an error of this image
    try:
        yield
    # on damaged files decoders raise any exception: SyntaxError, KeyError, ...
    except Exception as error:
        text = str(error)
        if isinstance(error, OSError):
            if is_shortage(error):
                raise
            text = error.strerror or text
        elif isinstance(error, struct.error):
            text = "the file is cut short or damaged"
        reason = " ".join(text.split()).rstrip(".") or type(error).__name__
        raise UserError(f"Image {name} cannot be read: {reason}.") from error


def load_image(path: str | Path, size: int) -> np.ndarray:
    """`read_image`, resized to a square of `size` pixels: uint8 (size, size).

    Raises UserError as `read_image` does.
    """
    return resize(read_image(path), size)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize pixels (H, W) to a square (size, size) of the same type."""
    if pixels.shape == (size, size):
        return pixels
    shrinks = min(pixels.shape) >= size
    return cv2.resize(
        pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def shrink_to(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Shrink pixels (H, W) so that the longer side is at most `longest` pixels."""
    shrink = longest / max(pixels.shape)
    if shrink >= 1:
        return pixels
    height, width = (max(1, round(side * shrink)) for side in pixels.shape)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _read_bytes(path: str | Path) -> bytes:
    """Content of a file. Raises OSError, and ValueError for a pipe, a device or a huge file."""
    check_regular(Path(path))
    limit = BYTES * max_pixels() + 2**24
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"the file has {format_size(size)}, more than any image")
        return file.read(limit)


def _decode(data: bytes) -> np.ndarray:
    if not data:
        raise ValueError("the file is empty")
    if data.startswith(_PNG):
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(_strip_png(data), dtype=np.uint8), flags)
        if pixels is None:
            raise ValueError("the file is cut short, damaged or of an unknown kind")
        return to_grey8(pixels)
    if data.startswith(_JPEG):
        width, height, *_ = frame_size(data)
        check_size(width, height)
        check_scans(data, width * height)
        check_end(data)
        image = JpegImageFile(io.BytesIO(data))
        check_size(*image.size)
        return np.asarray(image if image.mode == "L" else image.convert("RGB").convert("L"))
    # before TIFF, because the 128-byte preamble of a DICOM file may look like TIFF (PS3.10 7.1)
    if is_dicom_data(data):
        require_pydicom()
        # late: pydicom is optional and slow to import
        from core.data.images.dicom.pixels import decode

        return decode(data)
    if data.startswith(_TIFF):
        # late: tifffile and imagecodecs are slow to import
        from core.data.images import tiff

        return tiff.decode(data)
    raise ValueError("it is not a PNG, JPEG, TIFF or DICOM file")


def _strip_png(data: bytes) -> bytes:
    """Check all chunks of a PNG and remove ancillary ones, which may be decompression bombs.

    libpng would print warnings about invalid chunks.
    """
    start, whole, body = len(_PNG), [_PNG], 0
    expected = 0
    for _ in range(_MOST_CHUNKS):
        if start + 12 > len(data):
            raise ValueError("the file is cut short")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            raise ValueError("the file is cut short")
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("the file is damaged (a checksum is wrong)")
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack_from(">IIBB", data, start + 8)
            pixel = _SAMPLES.get(colour, 0) * bits / 8
            check_size(width, height, pixel)
            # when interlaced, a row has up to seven parts with one extra byte each
            expected = int(height * (width * pixel + 16)) + 2**16
        if kind == b"IDAT":
            body += length
        # names of ancillary chunks begin with a lower-case letter
        if kind[:1].isupper():
            whole.append(data[start : end + 4])
        if kind == b"IEND":
            break
        start = end + 4
    else:
        raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")
    if body * _MOST_INFLATED > expected + _SOON:
        _check_inflated(whole, expected)
    return b"".join(whole)


def _check_inflated(chunks: list[bytes], expected: int) -> None:
    """Raise ValueError if the pixel data inflates to more than `expected` bytes."""
    inflater = zlib.decompressobj()
    for chunk in chunks:
        rest = chunk[8:-4] if chunk[4:8] == b"IDAT" else b""
        while rest and not inflater.eof:
            expected -= len(inflater.decompress(rest, 2**20))
            rest = inflater.unconsumed_tail
            if expected < 0:
                raise ValueError("it holds more pixels than its header claims")
