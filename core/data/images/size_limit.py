"""Limit of pixels that a header may claim, against decompression bombs.

It is an environment variable and no flag, so that worker processes and every command have it.
"""

import os

from core.errors import UserError

# Twice the pixels of the largest digitised films.
MAX_PIXELS = 100_000_000
VARIABLE = "CXR_MAX_PIXELS"
# of each of these, that a decoder makes room for: three samples of 16 bits
BYTES = 6
# cv2 decodes no larger image (CV_IO_MAX_IMAGE_PIXELS)
_LARGEST = 2**30


def max_pixels() -> int:
    """`MAX_PIXELS`, or the environment's CXR_MAX_PIXELS; UserError where that is not valid."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return MAX_PIXELS
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= _LARGEST):
        raise UserError(
            f"The environment variable {VARIABLE} is '{text[:40]}': give the number of pixels that "
            f"an image may have as a whole number up to {_LARGEST}, such as {2 * MAX_PIXELS}."
        )
    return int(text)


def check_size(width: int, height: int, pixel: float = 1) -> None:
    """Raise ValueError where an image of these sides, in pixels, is larger than `max_pixels`, or
    than these would be at `BYTES` a pixel where each has `pixel` bytes."""
    limit = max_pixels()
    if width < 1 or height < 1:
        raise ValueError(f"its header claims {width:,} x {height:,} pixels")
    if width * height * max(1, pixel / BYTES) > limit:
        each, most = (f" of {pixel:g} bytes", f" of {BYTES}") if pixel > BYTES else ("", "")
        raise ValueError(
            f"its header claims {width:,} x {height:,} pixels{each}, more than the limit of "
            f"{limit:,}{most}; if it is sound, raise the limit by the environment variable "
            f"{VARIABLE}"
        )
