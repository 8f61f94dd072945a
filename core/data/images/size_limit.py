"""Limit on image size, against decompression bombs.

An environment variable, so that it applies to every command and its worker processes.
"""

import os

from core.errors import UserError

# twice the pixels of the largest digitised films
MAX_PIXELS = 100_000_000
VARIABLE = "CXR_MAX_PIXELS"
# bytes per pixel that a decoder allocates: three samples of 16 bits
BYTES = 6
# limit of cv2 (CV_IO_MAX_IMAGE_PIXELS)
_LARGEST = 2**30


def max_pixels() -> int:
    """Value of CXR_MAX_PIXELS, default `MAX_PIXELS`. Raises UserError if it is invalid."""
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
    """Raise ValueError if an image of these sides exceeds `max_pixels`.

    Images with more than `BYTES` per pixel (`pixel`) have a proportionally lower limit.
    """
    limit = max_pixels()
    if width < 1 or height < 1:
        raise ValueError(f"its header claims {width:,} x {height:,} pixels")
    if width * height * max(1, pixel / BYTES) > limit:
        each, most = (f" of {pixel:g} bytes", f" of {BYTES}") if pixel > BYTES else ("", "")
        raise ValueError(
            f"its header claims {width:,} x {height:,} pixels{each}, more than the limit of "
            f"{limit:,}{most}; if the file is valid, raise the limit with the environment variable "
            f"{VARIABLE}"
        )
