"""Conversion of pixels of any depth to 8-bit grey."""

import cv2
import numpy as np
from numpy.typing import DTypeLike

# percentiles of the grey levels that become 0 and 255 if a file has more than 8 bits
WINDOW = (0.5, 99.5)
_BLUE_GREEN_RED = (0.114, 0.587, 0.299)  # ITU-R 601-2
_AT_ONCE = 2**22  # pixels


def to_grey8(pixels: np.ndarray) -> np.ndarray:
    """Convert grey, BGR or BGRA pixels of any numeric type to grey uint8 (H, W).

    With more than 8 bits, the percentiles `WINDOW` become 0 and 255. Raises ValueError if no pixel
    is finite.
    """
    if pixels.dtype == np.uint8:
        return luma(pixels)
    if pixels.dtype == np.uint16:
        pixels = luma(pixels)
        levels = np.arange(2**16, dtype=np.float32)
        counts = np.bincount(pixels.ravel(), minlength=2**16)
        return scale(levels, *window_of_levels(levels, counts))[pixels]
    # float32 would merge close levels of 32 bits
    pixels = luma(pixels, np.float32 if np.can_cast(pixels.dtype, np.float32) else np.float64)
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        raise ValueError("it has no finite pixel")
    ends = float(finite.min()), float(finite.max())
    low, high = (float(level) for level in np.percentile(finite, WINDOW, overwrite_input=True))
    del finite
    if low == high:
        low, high = ends
    shown = np.empty(pixels.shape, np.uint8)
    # in blocks of rows, because float64 copies of large images need much memory
    rows = max(1, _AT_ONCE // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows].astype(np.float64)
        part = np.nan_to_num(part, copy=False, nan=low, posinf=high, neginf=low)
        shown[start : start + rows] = scale(part, low, high)
    return shown


def luma(pixels: np.ndarray, kind: DTypeLike | None = None) -> np.ndarray:
    """Luma (H, W) of BGR pixels (H, W, 3 or more); grey pixels (H, W) are unchanged.

    Computed as `kind` (uint8, uint16, float32 or float64), by default the type of the pixels.
    """
    kind = np.dtype(kind or pixels.dtype)
    if pixels.ndim == 2:
        return pixels.astype(kind, copy=False)
    grey = np.empty(pixels.shape[:2], kind)
    rows = max(1, _AT_ONCE // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        colours = np.ascontiguousarray(pixels[start : start + rows, :, :3], kind)
        if kind == np.float64:  # not supported by cvtColor
            part = cv2.transform(colours, np.array([_BLUE_GREEN_RED]))
        else:
            part = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)
        grey[start : start + rows] = part
    return grey


def window_of_levels(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Percentiles `WINDOW` of pixels with level `levels[i]` occurring `counts[i]` times.

    Equal to np.percentile on the pixels, but several times faster. If the percentiles are equal,
    returns the lowest and highest level. `levels` (L,) must be ascending.
    """
    upto = np.cumsum(counts)
    last = upto[-1] - 1
    ranks = np.array(WINDOW) / 100 * last
    below, above = (
        levels[np.searchsorted(upto, rank(ranks), "right")] for rank in (np.floor, np.ceil)
    )
    low, high = below + (above - below) * (ranks % 1)
    if low == high:
        low, high = levels[np.searchsorted(upto, [0, last], "right")]
    return float(low), float(high)


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale `low` to 0 and `high` to 255, rounded to uint8; a constant image becomes 0."""
    if np.isinf(high - low):
        values, low, high = values / 2, low / 2, high / 2
    return (np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255 + 0.5).astype(np.uint8)
