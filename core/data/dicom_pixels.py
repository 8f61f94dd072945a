"""The pixels of a DICOM file → one grey channel of 8 bits, as a viewer first shows them.

PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, window), C.7.6.3.1.2 (photometric interpretation).
pydicom reads and decompresses. The grey levels are computed here, once for each of the 65,536 that
a pixel may have: pydicom's functions work on every pixel in float64, and those of look-up tables
wrap their index where an entry has 8 bits (pydicom 3.0.2).
"""

import struct

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import JPEGExtended12Bit, RLELossless

from core.data.dicom import INSTALL
from core.data.dicom_bounds import bounded, check_lengths, check_runs
from core.data.grey import scale, to_grey8, window_of_levels
from core.data.jpeg import check_scans, frame_size
from core.data.limit import BYTES, check_size

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as for other files
_SIZ = b"\xff\x4f\xff\x51"


def decode(data: bytes) -> np.ndarray:
    """The single frame of a DICOM file as grey uint8 (H, W), MONOCHROME1 inverted.

    The first VOI LUT, or else the first window, becomes 0..255; without one (or with a window of no
    width) 8 bits are kept and of more the percentiles `grey.WINDOW` become 0 and 255, padding left
    out of account. Colour becomes luma.

    Raises ValueError for a file without pixels, with several frames, larger than `max_pixels`, of
    which nothing would be seen, or compressed with what no installed plug-in reads; damaged files
    raise about anything.
    """
    dataset = dcmread(bounded(data))
    _check(dataset)
    decoder = _find_decoder(dataset)
    stored, properties = decoder.as_array(dataset, index=0)
    stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))
    colours = str(properties["photometric_interpretation"])
    if colours == "RGB":
        return to_grey8(stored[..., ::-1])
    if colours not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"):
        raise ValueError(f"its colours are {colours}, and grey, RGB, YBR and palettes are read")
    kind = np.dtype(f"u{stored.itemsize}")
    codes = stored.view(kind)
    levels = np.arange(2 ** (8 * stored.itemsize), dtype=kind).view(stored.dtype).astype(np.int64)
    if colours == "PALETTE COLOR":
        return _palette(levels, dataset)[codes]
    grey = _grey(levels, codes, dataset)
    shown = (255 - grey if colours == "MONOCHROME1" else grey)[codes]
    if shown.min() == shown.max() and codes.min() < codes.max():
        raise ValueError("its window, look-up table or rescaling makes all of it one grey")
    return shown


def _check(dataset: Dataset) -> None:
    """Raise ValueError where there is not one image of a believable size."""
    check_lengths(dataset)
    sides = dataset.get("Columns"), dataset.get("Rows")
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ValueError("its pixels are floating-point numbers, and whole numbers are read")
    if "PixelData" not in dataset:
        kind = dataset.get("SOPClassUID")
        what = f"it is a {kind.name}" if kind else "it does not say what it is"
        if None not in sides:
            what += ", of which the header alone is there"
        raise ValueError(f"it is a DICOM file without pixels: {what}")
    if not dataset.PixelData:
        raise ValueError("its pixel data is empty")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"it has {frames:,} frames, and only a single image is read")
    if not all(sides):
        raise ValueError("its header does not say how many rows and columns it has")
    check_size(*sides)
    if len(dataset.PixelData) > 2 * BYTES * sides[0] * sides[1] + 2**20:
        raise ValueError(f"its pixel data is far more than {sides[0]:,} x {sides[1]:,} pixels")
    if dataset.BitsAllocated not in (1, 8, 16):
        raise ValueError(f"its pixels have {dataset.BitsAllocated} bits, and up to 16 are read")


def _find_decoder(dataset: Dataset) -> Decoder:
    """What reads the pixels. Raises ValueError where nothing does, or where their own header
    contradicts that of the file."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(f"its pixels are compressed as {syntax.name}, which is not read") from None
    if not decoder.is_encapsulated:
        return decoder
    needs = f"its pixels are compressed as {syntax.name}, which needs the plug-in"
    if not decoder.is_available:
        plugin = "pylibjpeg-openjpeg" if "High-Throughput" in syntax.name else "python-gdcm"
        raise ValueError(f"{needs} {plugin}: {INSTALL}")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        check_runs(frame)
        return decoder
    width, height, bits = _coded_size(frame)
    if (width, height) != (dataset.Columns, dataset.Rows):
        raise ValueError(
            f"its header claims {dataset.Columns:,} x {dataset.Rows:,} pixels and its compressed "
            f"image {width:,} x {height:,}"
        )
    check_scans(frame, width * height)
    if syntax == JPEGExtended12Bit and bits > 8 and "pylibjpeg" not in decoder.available_plugins:
        raise ValueError(
            f"{needs} pylibjpeg-libjpeg (under the GPL) where it has {bits} bits: pip install "
            "pylibjpeg-libjpeg"
        )
    return decoder


def _coded_size(frame: bytes) -> tuple[int, int, int]:
    """(width, height, bits) in the header of a JPEG (ITU-T T.81 B.2.2), JPEG-LS (T.87 C.2.2) or
    JPEG 2000 (T.800 A.5.1) image, from which a decoder takes how much memory it wants."""
    if not frame.startswith(b"\xff\xd8"):
        start = frame.find(_SIZ)
        if start < 0:
            raise ValueError("its compressed pixel data is damaged")
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return right - left, bottom - top, (frame[start + 42] & 127) + 1
    return frame_size(frame)[:3]


def _grey(levels: np.ndarray, codes: np.ndarray, dataset: Dataset) -> np.ndarray:
    """What each stored level is shown as, uint8 (L,), in an image whose pixels are
    `levels[codes]`."""
    values = _modality(levels, dataset)
    window = _voi(values, dataset)
    if window is not None:
        return scale(*window)
    if dataset.BitsStored == 8 and not dataset.PixelRepresentation and (values == levels).all():
        return np.clip(levels, 0, 255).astype(np.uint8)
    counts = np.bincount(codes.ravel(), minlength=len(levels))
    if (padding := dataset.get("PixelPaddingValue")) is not None:
        ends = sorted((padding, dataset.get("PixelPaddingRangeLimit", padding)))
        others = np.where((levels >= ends[0]) & (levels <= ends[1]), 0, counts)
        counts = others if others.any() else counts
    order = np.argsort(values, kind="stable")
    return scale(values, *window_of_levels(values[order], counts[order]))


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored levels → what the machine measured, float64 (L,)."""
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        check_lengths(item)
        return _look_up(levels, item.LUTDescriptor, item.LUTData, dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    with np.errstate(all="ignore"):
        values = levels * slope + (0.0 if intercept is None else float(intercept))
    if not slope or not np.isfinite(values).all():
        raise ValueError(f"its Rescale Slope is {slope} and its Rescale Intercept {intercept}")
    return values


def _voi(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, float, float] | None:
    """Values (L,), which of them is black and which is white; None without LUT and window."""
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        check_lengths(item)
        shown = _look_up(values, item.LUTDescriptor, item.LUTData, dataset)
        # not 2^bits - 1, of which too many files claim too much
        return shown, shown.min(), shown.max()
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    # half of what a number can be at most, as they are added
    if not all(one is None or abs(one) < 8e307 for one in (center, width)):
        raise ValueError(f"its Window Center is {center} and its Window Width {width}")
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"its VOI LUT Function {function} is unknown")
    if center is None or width is None or not width > 0:
        return None
    if function == "SIGMOID":  # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)), which overflows
        return 0.5 + 0.5 * np.tanh(2 * (values - center) / width), 0.0, 1.0
    if function == "LINEAR":  # C.11.2.1.2.1, where a width is 1 at least
        if width < 1:
            return None
        center, width = center - 0.5, max(width - 1, 1e-6)
    return values, center - width / 2, center + width / 2


def _first(value: object) -> float | None:
    """The first of several values of an element, or the only one."""
    if value is None or isinstance(value, (int, float)):
        return None if value is None else float(value)
    values = list(value)  # type: ignore[call-overload]
    return float(values[0]) if values else None


def _look_up(
    values: np.ndarray, descriptor: list[int], data: bytes | list[int], dataset: Dataset
) -> np.ndarray:
    """Each value's entry in a look-up table (C.11.1.1), float64 (L,); beyond it that of its end."""
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16
    order = "<"
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data)).astype("<u2").tobytes()
    elif not dataset.original_encoding[1]:
        order = ">"
    # entries of 8 bits stand two in a word, or one, as many programs write them
    packed = bits <= 8 and len(data) <= count + 1
    entries = np.frombuffer(data, np.uint8 if packed else f"{order}u2")[:count]
    if len(entries) < count:
        raise ValueError(f"a look-up table has {len(entries):,} of its {count:,} entries")
    places = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[places].astype(np.float64)


def _palette(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The luma of each stored level's colour (C.7.6.3.1.6), uint8 (L,)."""
    luma = np.zeros(len(levels))
    for share, colour in zip(_LUMA, ("Red", "Green", "Blue"), strict=True):
        descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        entries = dataset[f"{colour}PaletteColorLookupTableData"].value
        luma += share * _look_up(levels, descriptor, entries, dataset)
    deep = descriptor[2] > 8
    return scale(luma, 0, 65535 if deep else 255)
