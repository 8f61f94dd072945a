"""Stored levels of a DICOM image → grey of 8 bits, once for each of the up to 65,536 levels.

PS3.3 C.7.5.1.1.2 (padding), C.7.6.3.1.6 (palette), C.11.1 (modality LUT), C.11.2 (VOI LUT and
window). Read here, as pydicom 3.0.2 refuses numbers and tables that break a rule of the standard,
cuts fractions off and wraps the index into tables of 8 bits.
"""

import math
from typing import Any

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue

from core.data.images.dicom.limits import check_lengths
from core.data.images.greyscale import scale, window_of_levels

_LUMA = {"Red": 0.299, "Green": 0.587, "Blue": 0.114}  # ITU-R 601-2, as for other files
# value representations that hold numbers in binary; text is read from all others
_BINARY = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD")
# of an image's range: how far lossy compression may take padding from its value
_LOSS = 1 / 32


def grey_of_levels(
    levels: np.ndarray, codes: np.ndarray, dataset: Dataset, *, lossy: bool
) -> np.ndarray:
    """What each stored level is shown as, uint8 (L,), in an image whose pixels are
    `levels[codes]`: MONOCHROME1 inverted, padding black."""
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
    # what is near to dark padding is as dark by itself
    grey[near if (grey[padding] > 127).any() else padding] = 0
    return grey


def grey_of_palette(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The luma of each stored level's colour (C.7.6.3.1.6), uint8 (L,)."""
    if "RedPaletteColorLookupTableData" not in dataset:
        what = "segmented" if "SegmentedRedPaletteColorLookupTableData" in dataset else "missing"
        raise ValueError(
            f"its palette is {what}, and plain ones are read: convert it to RGB, as "
            "pydicom.pixels.apply_color_lut does for a segmented one"
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
    """Which levels are padding (C.7.5.1.1.2), bool (L,), and which may be after lossy compression,
    where a single value has become a range; none where all of the image would be."""
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
        # a flat area keeps its level mostly; without one, what is near is image
        if 2 * (present == first).sum() < near[codes].sum():
            near = padding
    # a few rows first, which mostly decide it
    return (none, none) if near[codes[::64]].all() and near[codes].all() else (padding, near)


def _of_same_bits(value: Any, levels: np.ndarray) -> int | None:
    """The stored level with the bits of a number, maybe written with the other sign, or None."""
    number = _number(str(_several(value)[0]))
    if not number.is_integer():
        return None
    low, count = int(levels.min()), int(np.ptp(levels)) + 1
    for written in (int(number), int(number) - 2**16, int(number) + 2**16):
        if low <= written < count:
            return low + (written - low) % count
    return None


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored levels → what the machine measured, float64 (L,)."""
    if (table := _table(dataset, "ModalityLUTSequence")) is not None:
        return _look_up(levels, table.LUTDescriptor, table.LUTData, dataset)
    slope, intercept = scalar(dataset, "RescaleSlope", 1), scalar(dataset, "RescaleIntercept", 0)
    with np.errstate(all="ignore"):
        values = levels.astype(np.float64) * slope + intercept
    if not slope or not np.isfinite(values).all():
        raise ValueError(f"its Rescale Slope is {slope} and its Rescale Intercept {intercept}")
    return values


def _voi(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Values (L,) through the first VOI LUT or first valid window, uint8 (L,); None without."""
    if (table := _table(dataset, "VOILUTSequence")) is not None:
        shown = _look_up(values, table.LUTDescriptor, table.LUTData, dataset)
        # not 2^bits - 1, of which too many files claim too much
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
    """Values through a window, 0 to 255 (C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2)."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    shown = ((values - center) / width + 0.5) * 255
    shown[values <= center - width / 2] = 0
    shown[values > center + width / 2] = 255
    return shown


def _table(dataset: Dataset, name: str) -> Dataset | None:
    """The first item of a sequence that holds a look-up table; None without one."""
    items = dataset.get(name)
    for item in items if isinstance(items, Sequence) else ():
        check_lengths(item)
        if all(item.get(part) not in (None, b"", "", []) for part in ("LUTDescriptor", "LUTData")):
            return item
    return None


def _look_up(values: np.ndarray, descriptor: Any, data: Any, dataset: Dataset) -> np.ndarray:
    """Each value's entry in a look-up table (C.11.1.1), float64 (L,); beyond it that of its end."""
    if len(_several(descriptor)) != 3:
        raise ValueError(f"a look-up table is described by {descriptor}, and three numbers are due")
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16
    order = "<"
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data)).astype("<u2").tobytes()
    elif not dataset.original_encoding[1]:
        order = ">"
    # entries of 8 bits stand two in a word, or one, as many programs write them
    packed = bits <= 8 and len(data) <= count + 1
    kind = np.dtype(np.uint8 if packed else f"{order}u2")
    entries = np.frombuffer(data, kind, len(data) // kind.itemsize)[:count]
    if len(entries) < count:
        raise ValueError(f"a look-up table has {len(entries):,} of its {count:,} entries")
    # the other sign, where no value would be in the table
    for other in (first - 2**16, first + 2**16):
        apart = first > values.max() or first + count <= values.min()
        if apart and other <= values.max() and other + count > values.min():
            first = other
    places = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[places].astype(np.float64)


def scalar(dataset: Dataset, name: str, default: float) -> float:
    """The first number of an element; `default` where it is blank or missing."""
    text = _texts(dataset, name)[0]
    number = _number(text) if text else default
    if math.isnan(number):
        raise ValueError(f"its {name} is '{text[:40]}', which is not a number")
    return number


def _texts(dataset: Dataset, name: str) -> list[str]:
    """The values of an element as they are written, at least one, "" for a blank one: pydicom
    raises for a number that it cannot read."""
    element = dataset.get_item(name)
    value = None if element is None else element.value
    if isinstance(value, bytes) and element.VR not in _BINARY:
        value = value.decode("latin-1").split("\\")
    elif value is not None:
        value = dataset[name].value
    return ["" if one is None else str(one).strip(" \0") for one in _several(value)]


def _number(text: str) -> float:
    """The number of a text, which may have a decimal comma; NaN where it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _several(value: Any) -> list[Any]:
    """The values of an element, which stands alone where it is the only one; at least one."""
    return list(value) or [None] if isinstance(value, (list, MultiValue)) else [value]
