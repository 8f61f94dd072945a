"""Grey levels of any depth → 8 bits."""

import cv2
import numpy as np

# Percentiles of the grey levels that become 0 and 255 where a file has more than 8 bits.
WINDOW = (0.5, 99.5)


def to_grey8(pixels: np.ndarray) -> np.ndarray:
    """Grey, blue-green-red or that with transparency, of any number type → uint8 (H, W).

    8 bits are kept; of more, the percentiles `WINDOW` become 0 and 255. Raises ValueError where no
    pixel is finite.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2GRAY)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        levels = np.arange(2**16, dtype=np.float32)
        counts = np.bincount(pixels.ravel(), minlength=2**16)
        return scale(levels, *window_of_levels(levels, counts))[pixels]
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        raise ValueError("it holds no finite pixel")
    low, high = (float(level) for level in np.percentile(finite, WINDOW))
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    return scale(np.nan_to_num(pixels, nan=low, posinf=high, neginf=low), low, high)


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
    return (np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255 + 0.5).astype(np.uint8)
