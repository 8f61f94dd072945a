"""Decoding of DICOM pixels to one grey channel of 8 bits, with the default window of a viewer.

PS3.3 C.7.6.3.1.2 (photometric interpretation), PS3.5 8.1.1 (stored bits), 8.2.4 (JPEG 2000).
pydicom reads and decompresses; `core.data.images.dicom.window` maps stored levels to grey.
"""

import struct
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import imagecodecs
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from core.data.images.dicom.header import INSTALL
from core.data.images.dicom.limits import bounded, check_lengths
from core.data.images.dicom.window import grey_of_levels, grey_of_palette, scalar
from core.data.images.greyscale import to_grey8
from core.data.images.jpeg_header import check_scans, frame_size
from core.data.images.size_limit import BYTES, check_size

_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_OF_OWN_BITS = (*JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
_BY_IMAGECODECS: dict[str, Callable[[bytes], np.ndarray]] = {
    JPEGLossless: imagecodecs.jpeg8_decode,
    JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
}
_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
# corrections by pydicom per pixel; `_stored_levels` does them once per level
_CORRECTIONS = ("correct_unused_bits", "apply_j2k_sign_correction", "apply_jls_sign_correction")
# required Presentation LUT Shape (PS3.3 C.8.11.3)
_SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
_CONVERT = "convert it to an uncompressed file, as dcmdjpeg and gdcmconv --raw do"


class _Coded(NamedTuple):
    """Header of a compressed image; `signed` is None if not specified."""

    width: int
    height: int
    bits: int
    signed: bool | None = None


def decode(data: bytes) -> np.ndarray:
    """Decode a single-frame DICOM file to grey uint8 (H, W); MONOCHROME1 inverted, padding black.

    The first VOI LUT, or else the first valid window, is mapped to 0..255. Without one, 8-bit
    levels are unchanged; of more bits the percentiles `greyscale.WINDOW` (without padding) become 0
    and 255. Colour becomes luma. A contradictory Presentation LUT Shape is ignored, with one
    warning per process. Raises ValueError if it is not supported or larger than `max_pixels`;
    damaged files raise any exception.
    """
    dataset = dcmread(bounded(data))
    _check(dataset)
    decoder, coded = _find_decoder(dataset)
    grey = dataset.get("SamplesPerPixel") == 1
    options = dict.fromkeys(_CORRECTIONS, not grey) | {"view_only": grey}
    if coded and coded.bits <= 8:
        # overrides the header of the file (PS3.5 8.2.1)
        options |= {"bits_allocated": 8, "bits_stored": coded.bits}
    colours = str(dataset.PhotometricInterpretation)
    # GDCM crashes the process on damaged JPEG, JPEG-LS and JPEG 2000
    plugin = "pillow" if coded and coded.bits == 8 and decoder.UID in _JPEG else ""
    plugin = "pylibjpeg" if decoder.UID in JPEG2000TransferSyntaxes else plugin
    try:
        if dataset.file_meta.TransferSyntaxUID == RLELossless:
            stored = _decode_rle(dataset)
            if colours == "YBR_FULL":
                colours, stored = "RGB", convert_color_space(stored, colours, "RGB")
        elif grey and coded and decoder.UID in _BY_IMAGECODECS:
            frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
            stored = _BY_IMAGECODECS[decoder.UID](frame)
            if stored.shape != (dataset.Rows, dataset.Columns) or stored.itemsize > 2:
                raise ValueError("its compressed image has several colours, or more than 16 bits")
        else:
            stored, properties = decoder.as_array(
                dataset, index=0, decoding_plugin=plugin, **options
            )
            colours = str(properties["photometric_interpretation"])
    except RuntimeError as error:
        raise ValueError(
            f"its pixels, compressed as {decoder.UID.name}, are damaged or not supported by the "
            f"installed plug-ins; if other programs read them, {_CONVERT}"
        ) from error
    stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))
    if colours == "RGB":
        return to_grey8(stored[..., ::-1])
    if colours not in _ONE_SAMPLE:
        raise ValueError(f"its colours {colours} are not grey, RGB, YBR or a palette")
    codes = stored.view(f"u{stored.itemsize}")
    levels = _stored_levels(codes, dataset, coded)
    if colours == "PALETTE COLOR":
        return grey_of_palette(levels, dataset)[codes]
    _warn_of_shape(dataset, colours)
    lossy = decoder.UID in _LOSSY or str(dataset.get("LossyImageCompression")) == "01"
    shown = grey_of_levels(levels, codes, dataset, lossy=lossy)[codes]
    if shown.min() == shown.max() and codes.min() < codes.max():
        raise ValueError("its window, look-up table or rescaling gives all pixels the same grey")
    return shown


def _decode_rle(dataset: Dataset) -> np.ndarray:
    """Decode RLE (PS3.5 G) to samples (H, W) or (H, W, S); pydicom's decoder takes seconds.

    Raises RuntimeError if they are damaged.
    """
    shape = dataset.SamplesPerPixel, dataset.Rows, dataset.Columns
    size, pixels = dataset.BitsAllocated // 8, dataset.Rows * dataset.Columns
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    number, *starts = struct.unpack_from("<16I", frame.ljust(64, b"\0"))
    if not 0 < number == shape[0] * size <= 15 or min(starts[:number]) < 64:
        raise RuntimeError("its header is damaged")
    # (S, H x W, bytes), most significant byte first
    planes = np.empty((shape[0], pixels, size), np.uint8)
    for index, (start, end) in enumerate(pairwise([*starts[:number], len(frame)])):
        # some writers pad the segments
        found = imagecodecs.packbits_decode(frame[start:end], out=pixels + 2**10)
        if len(found) < pixels:
            raise RuntimeError("a segment is cut short")
        planes[index // size, :, index % size] = np.frombuffer(found, np.uint8, pixels)
    samples = planes.view(f">u{size}").reshape(shape)
    return samples[0] if shape[0] == 1 else np.moveaxis(samples, 0, -1)


def _warn_of_shape(dataset: Dataset, colours: str) -> None:
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape in _SHAPES.values() and shape != _SHAPES[colours]:
        warnings.warn(
            f"A DICOM image has the Presentation LUT Shape {shape}, which contradicts its "
            f"Photometric Interpretation {colours}: the latter is used. Check that such images "
            "are not inverted.",
            stacklevel=3,
        )


def _stored_levels(codes: np.ndarray, dataset: Dataset, coded: _Coded | None) -> np.ndarray:
    """Value of each possible pixel code, int64 (L,), by its stored bits (PS3.5 8.1.1).

    The header of a JPEG 2000 or JPEG-LS image overrides that of the file (PS3.5 8.2.4), except for
    the sign of an unsigned stream. If one of the signs makes the image discontinuous, the other one
    is used.
    """
    allocated = 8 * codes.itemsize
    bits, high = dataset.BitsStored, dataset.get("HighBit")
    signed = bool(dataset.PixelRepresentation)
    low = 0
    if high is not None and bits <= high < (coded.bits if coded else allocated):
        low = high + 1 - bits
    elif coded and dataset.file_meta.TransferSyntaxUID in _OF_OWN_BITS:
        bits = min(coded.bits, allocated)
    plain = np.arange(2**allocated) >> low & (2**bits - 1)
    extended = np.where(plain >> (bits - 1), plain - 2**bits, plain)
    claimed, other = (extended, plain) if signed else (plain, extended)
    if coded is None or coded.signed in (None, signed):
        return claimed
    # the sign of an unsigned stream is less reliable
    likely, unlikely = (other, claimed) if coded.signed else (claimed, other)
    return unlikely if _jumps(unlikely[codes]) < _jumps(likely[codes]) / 2 else likely


def _jumps(pixels: np.ndarray) -> float:
    """Sum of absolute differences between neighbours in rows and columns."""
    return sum(float(np.abs(np.diff(pixels, axis=axis)).sum()) for axis in (0, 1))


def _check(dataset: Dataset) -> None:
    """Raise ValueError unless there is exactly one image, of a supported type and size."""
    check_lengths(dataset)
    columns, rows = dataset.get("Columns"), dataset.get("Rows")
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ValueError("its pixels are floating-point numbers, which are not supported")
    if not dataset.get("PixelData"):
        kind = dataset.get("SOPClassUID")
        raise ValueError(
            f"it is a DICOM file without pixels: {kind.name if kind else 'no SOP Class'}"
        )
    frames = scalar(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ValueError(
            f"it has {frames:,.0f} frames, and only single images are supported: save the frame as "
            "a separate file"
        )
    if not (columns and rows):
        raise ValueError("its header lacks the numbers of rows and columns")
    for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        if dataset.get(name) is None:
            raise ValueError(f"its header lacks the element {name}: export the file again")
    check_size(columns, rows)
    if len(dataset.PixelData) > 2 * BYTES * columns * rows + 2**20:
        raise ValueError(f"its pixel data is far more than {columns:,} x {rows:,} pixels")
    colours = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    dataset.PhotometricInterpretation = colours
    samples = dataset.get("SamplesPerPixel")
    if (samples == 1) != (colours in _ONE_SAMPLE):
        raise ValueError(f"its colours are '{colours}' and its samples per pixel {samples}")
    if dataset.BitsAllocated not in (1, 8, 16):
        raise ValueError(f"its pixels have {dataset.BitsAllocated} bits; up to 16 are supported")


def _find_decoder(dataset: Dataset) -> tuple[Decoder, _Coded | None]:
    """Decoder of the pixels, and the header of a JPEG, JPEG-LS or JPEG 2000 image."""
    syntax = _syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(
            f"its pixels are compressed as {syntax.name}, which is not supported: {_CONVERT}"
        ) from None
    if not decoder.is_encapsulated:
        return decoder, None
    needs = f"its pixels are compressed as {syntax.name}, which needs the plug-in"
    if not decoder.is_available:
        of_2000 = syntax in JPEG2000TransferSyntaxes
        plugin = "pylibjpeg-openjpeg" if of_2000 else "python-gdcm"
        raise ValueError(f"{needs} {plugin}: {INSTALL}")
    if syntax == RLELossless:
        return decoder, None
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    coded = _coded(frame)
    if (coded.width, coded.height) != (dataset.Columns, dataset.Rows):
        raise ValueError(
            f"its header claims {dataset.Columns:,} x {dataset.Rows:,} pixels and its compressed "
            f"image {coded.width:,} x {coded.height:,}"
        )
    check_scans(frame, coded.width * coded.height)
    deep = syntax in _JPEG and coded.bits > 8
    if deep and "pylibjpeg" not in decoder.available_plugins:
        raise ValueError(
            f"{needs} pylibjpeg-libjpeg (under the GPL) for {coded.bits} bits: pip install "
            "pylibjpeg-libjpeg"
        )
    return decoder, coded


def _syntax(dataset: Dataset) -> UID:
    """Transfer syntax of the pixels; if missing, the one by which the data set was parsed."""
    meta = dataset.file_meta
    if not meta.get("TransferSyntaxUID"):
        if dataset["PixelData"].is_undefined_length:
            raise ValueError(
                "its pixels are compressed and it has no Transfer Syntax UID: export the file "
                "again with its File Meta Information"
            )
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return meta.TransferSyntaxUID


def _coded(frame: bytes) -> _Coded:
    """Header of a JPEG (ITU-T T.81 B.2.2), JPEG-LS (T.87 C.2.2) or JPEG 2000 (T.800 A.5.1) image.

    Decoders allocate memory by it.
    """
    if frame.startswith(b"\xff\xd8"):
        return _Coded(*frame_size(frame)[:3])
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("its compressed pixel data is damaged")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    depth = frame[start + 42]
    return _Coded(right - left, bottom - top, (depth & 127) + 1, depth > 127)
