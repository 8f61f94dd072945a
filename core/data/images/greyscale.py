"""Grey levels of any depth → 8 bits."""

import cv2
import numpy as np
from numpy.typing import DTypeLike

# Percentiles of the grey levels that become 0 and 255 where a file has more than 8 bits.
WINDOW = (0.5, 99.5)
_BLUE_GREEN_RED = (0.114, 0.587, 0.299)  # ITU-R 601-2
_AT_ONCE = 2**22  # pixels


def to_grey8(pixels: np.ndarray) -> np.ndarray:
    """Grey, blue-green-red or that with transparency, of any number type → uint8 (H, W).

    Percentiles `WINDOW` of more than 8 bits become 0 and 255. ValueError without a finite pixel.
    """
    if pixels.dtype == np.uint8:
        return luma(pixels)
    if pixels.dtype == np.uint16:
        pixels = luma(pixels)
        levels = np.arange(2**16, dtype=np.float32)
        counts = np.bincount(pixels.ravel(), minlength=2**16)
        return scale(levels, *window_of_levels(levels, counts))[pixels]
    # levels of 32 bits that are close would be one as float32
    pixels = luma(pixels, np.float32 if np.can_cast(pixels.dtype, np.float32) else np.float64)
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        raise ValueError("it holds no finite pixel")
    ends = float(finite.min()), float(finite.max())
    low, high = (float(level) for level in np.percentile(finite, WINDOW, overwrite_input=True))
    del finite
    if low == high:
        low, high = ends
    shown = np.empty(pixels.shape, np.uint8)
    # in parts: they are computed in float64, and an image may be large
    rows = max(1, _AT_ONCE // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows].astype(np.float64)
        part = np.nan_to_num(part, copy=False, nan=low, posinf=high, neginf=low)
        shown[start : start + rows] = scale(part, low, high)
    return shown


def luma(pixels: np.ndarray, kind: DTypeLike | None = None) -> np.ndarray:
    """Grey as it is, and blue-green-red (H, W, 3 or more) as grey: (H, W), computed as `kind`
    (uint8, uint16, float32 or float64) or as the type of the pixels."""
    kind = np.dtype(kind or pixels.dtype)
    if pixels.ndim == 2:
        return pixels.astype(kind, copy=False)
    grey = np.empty(pixels.shape[:2], kind)
    rows = max(1, _AT_ONCE // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        colours = np.ascontiguousarray(pixels[start : start + rows, :, :3], kind)
        if kind == np.float64:  # which cvtColor does not take
            part = cv2.transform(colours, np.array([_BLUE_GREEN_RED]))
        else:
            part = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)
        grey[start : start + rows] = part
    return grey


def window_of_levels(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The percentiles `WINDOW` of pixels that have level `levels[i]` `counts[i]` times.

    As np.percentile, and several times faster than that on the pixels; the lowest and the highest
    level there is where the percentiles are equal. `levels` (L,) must ascend.
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
    """`low` becomes 0 and `high` 255, rounded; a constant image becomes 0. uint8, same shape."""
    if np.isinf(high - low):
        values, low, high = values / 2, low / 2, high / 2
    return (np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255 + 0.5).astype(np.uint8)
