"""DICOM windowing: stored levels to 8-bit grey, computed once for each of up to 65,536 levels.

PS3.3 C.7.5.1.1.2 (padding), C.7.6.3.1.6 (palette), C.11.1 (modality LUT), C.11.2 (VOI LUT and
window). Not done by pydicom 3.0.2, which rejects slightly invalid numbers and tables, truncates
fractions and wraps indices into 8-bit tables.
"""

import math
from typing import Any

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue

from core.data.images.dicom.limits import check_lengths
from core.data.images.greyscale import scale, window_of_levels

_LUMA = {"Red": 0.299, "Green": 0.587, "Blue": 0.114}  # ITU-R 601-2, as for other files
# value representations with binary numbers; all others are text
_BINARY = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD")
# largest deviation of padding by lossy compression, as a fraction of the image's range
_LOSS = 1 / 32


def grey_of_levels(
    levels: np.ndarray, codes: np.ndarray, dataset: Dataset, *, lossy: bool
) -> np.ndarray:
    """Grey of each stored level, uint8 (L,), for an image with pixels `levels[codes]`.

    MONOCHROME1 is inverted, padding is black.
    """
    padding, near = _padding(levels, codes, dataset, lossy)
    values = _modality(levels, dataset)
    grey = _voi(values, dataset)
    same = levels.astype(np.uint8)
    if grey is None and dataset.BitsStored == 8 and np.array_equal(values, same):
        grey = same
    elif grey is None:
        counts = np.where(near, 0, np.bincount(codes.ravel(), minlength=len(levels)))
        order = np.argsort(values, kind="stable")
        grey = scale(values, *window_of_levels(values[order], counts[order]))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    # levels near dark padding are dark anyway
    grey[near if (grey[padding] > 127).any() else padding] = 0
    return grey


def grey_of_palette(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Luma of each stored level's palette colour (C.7.6.3.1.6), uint8 (L,)."""
    if "RedPaletteColorLookupTableData" not in dataset:
        what = "segmented" if "SegmentedRedPaletteColorLookupTableData" in dataset else "missing"
        raise ValueError(
            f"its palette is {what}, which is not supported: convert it to RGB, for example with "
            "pydicom.pixels.apply_color_lut if it is segmented"
        )
    luma = np.zeros(len(levels))
    for colour, share in _LUMA.items():
        descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        entries = dataset[f"{colour}PaletteColorLookupTableData"].value
        luma += share * _look_up(levels, descriptor, entries, dataset)
    return scale(luma, 0, 65535 if descriptor[2] > 8 else 255)


def _padding(
    levels: np.ndarray, codes: np.ndarray, dataset: Dataset, lossy: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (L,) of padding levels (C.7.5.1.1.2), and of those that may be padding.

    Lossy compression turns a single padding value into a range. No level is padding if the whole
    image would be.
    """
    none = np.zeros(len(levels), dtype=bool)
    first, limit = (
        _of_same_bits(dataset.get(name), levels)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    if first is None:
        return none, none
    last = first if limit is None else limit
    padding = near = (levels >= min(first, last)) & (levels <= max(first, last))
    if lossy and limit is None:
        present = levels[codes]
        near = np.abs(levels - first) <= _LOSS * int(present.max() - present.min())
        # flat padding mostly keeps its level; otherwise near levels are image
        if 2 * (present == first).sum() < near[codes].sum():
            near = padding
    # a few rows first, because they usually decide
    return (none, none) if near[codes[::64]].all() and near[codes].all() else (padding, near)


def _of_same_bits(value: Any, levels: np.ndarray) -> int | None:
    """Stored level with the bits of a number, possibly written with the other sign, or None."""
    number = _number(str(_several(value)[0]))
    if not number.is_integer():
        return None
    low, count = int(levels.min()), int(np.ptp(levels)) + 1
    for written in (int(number), int(number) - 2**16, int(number) + 2**16):
        if low <= written < count:
            return low + (written - low) % count
    return None


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Apply the modality LUT or rescaling to stored levels, float64 (L,)."""
    if (table := _table(dataset, "ModalityLUTSequence")) is not None:
        return _look_up(levels, table.LUTDescriptor, table.LUTData, dataset)
    slope, intercept = scalar(dataset, "RescaleSlope", 1), scalar(dataset, "RescaleIntercept", 0)
    with np.errstate(all="ignore"):
        values = levels.astype(np.float64) * slope + intercept
    if not slope or not np.isfinite(values).all():
        raise ValueError(f"its Rescale Slope is {slope} and its Rescale Intercept {intercept}")
    return values


def _voi(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Apply the first VOI LUT or valid window to values (L,), uint8 (L,); None without one."""
    if (table := _table(dataset, "VOILUTSequence")) is not None:
        shown = _look_up(values, table.LUTDescriptor, table.LUTData, dataset)
        # not 2^bits - 1, because many files have a wrong number of bits
        return scale(shown, shown.min(), shown.max())
    function = _texts(dataset, "VOILUTFunction")[0].upper().replace(" ", "_") or "LINEAR"
    least = 1 if function == "LINEAR" else 1e-300  # C.11.2.1.2.1
    centers, widths = (
        map(_number, _texts(dataset, name)) for name in ("WindowCenter", "WindowWidth")
    )
    for center, width in zip(centers, widths, strict=False):
        if not (math.isfinite(center) and least <= width < math.inf):
            continue
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            raise ValueError(f"its VOI LUT Function {function} is unknown")
        with np.errstate(all="ignore"):
            return scale(_windowed(values, center, width, function), 0, 255)
    return None


def _windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Apply a window to values, 0 to 255 (C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2)."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    shown = ((values - center) / width + 0.5) * 255
    shown[values <= center - width / 2] = 0
    shown[values > center + width / 2] = 255
    return shown


def _table(dataset: Dataset, name: str) -> Dataset | None:
    """First item of a sequence with a look-up table, or None."""
    items = dataset.get(name)
    for item in items if isinstance(items, Sequence) else ():
        check_lengths(item)
        if all(item.get(part) not in (None, b"", "", []) for part in ("LUTDescriptor", "LUTData")):
            return item
    return None


def _look_up(values: np.ndarray, descriptor: Any, data: Any, dataset: Dataset) -> np.ndarray:
    """Look up values in a table (C.11.1.1), float64 (L,); values beyond it get its end entry."""
    if len(_several(descriptor)) != 3:
        raise ValueError(f"a look-up table has the descriptor {descriptor}, not three numbers")
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16
    order = "<"
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data)).astype("<u2").tobytes()
    elif not dataset.original_encoding[1]:
        order = ">"
    # 8-bit entries are packed two per word, or one per word by many programs
    packed = bits <= 8 and len(data) <= count + 1
    kind = np.dtype(np.uint8 if packed else f"{order}u2")
    entries = np.frombuffer(data, kind, len(data) // kind.itemsize)[:count]
    if len(entries) < count:
        raise ValueError(f"a look-up table has {len(entries):,} of its {count:,} entries")
    # use the other sign if otherwise no value is in the table
    for other in (first - 2**16, first + 2**16):
        apart = first > values.max() or first + count <= values.min()
        if apart and other <= values.max() and other + count > values.min():
            first = other
    places = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[places].astype(np.float64)


def scalar(dataset: Dataset, name: str, default: float) -> float:
    """First number of an element; `default` if it is blank or missing."""
    text = _texts(dataset, name)[0]
    number = _number(text) if text else default
    if math.isnan(number):
        raise ValueError(f"its {name} is '{text[:40]}', which is not a number")
    return number


def _texts(dataset: Dataset, name: str) -> list[str]:
    """Raw texts of an element's values, at least one, "" if blank; pydicom rejects bad numbers."""
    element = dataset.get_item(name)
    value = None if element is None else element.value
    if isinstance(value, bytes) and element.VR not in _BINARY:
        value = value.decode("latin-1").split("\\")
    elif value is not None:
        value = dataset[name].value
    return ["" if one is None else str(one).strip(" \0") for one in _several(value)]


def _number(text: str) -> float:
    """Number of a text, which may have a decimal comma; NaN if it is not a number."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _several(value: Any) -> list[Any]:
    """Values of an element as a list with at least one entry."""
    return list(value) or [None] if isinstance(value, (list, MultiValue)) else [value]
