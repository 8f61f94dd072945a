"""Reads of spoiled images, in the child: makes the file, reads it, and judges what was read."""

import os
from pathlib import Path

import numpy as np

from core.data.images.decode import read_image, resize
from core.data.images.dicom.header import read_headers
from tests.helpers.fuzz.dicom_bytes import whole_dicom
from tests.helpers.fuzz.image_files import whole_images
from tests.helpers.fuzz.mutations import spoil

OUT = Path(os.environ["FUZZ_OUT"])
# before the first fork
WHOLE = whole_images() | whole_dicom()


def whole(name: str) -> None:
    """A sound file is read as it is."""
    file = WHOLE[name]
    pixels = _read(OUT / name, file.data)
    assert pixels.shape == file.pixels.shape, pixels.shape
    missed = np.abs(pixels - file.pixels.astype(float)).max()
    assert missed <= file.miss, f"misses by {missed}"


def cut(name: str, length: int) -> None:
    """A file that was cut is refused, or nothing was lost with what is missing."""
    file = WHOLE[name]
    pixels = _read(OUT / name, file.data[:length])
    assert np.array_equal(pixels, _read(OUT / name, file.data)), "pixels are lost in silence"


def spoiled(name: str, number: int) -> None:
    """A spoiled file is refused, or it still shows something."""
    file = WHOLE[name]
    pixels = _read(OUT / name, spoil(file.data, number))
    varied = pixels.size < 9 or pixels.min() < pixels.max()
    assert varied or file.pixels.size == 1, "it is constant"


def at(path: str) -> None:
    """Whatever is at this path."""
    _read(Path(path))


def shown(path: str) -> None:
    """An image of noise at this path."""
    pixels = _read(Path(path))
    assert pixels.size < 30 or pixels.min() < pixels.max(), "it is constant"


def headers(name: str, length: int, number: int) -> None:
    """What the header of a DICOM file says that was cut to `length`, or spoiled if that is -1."""
    data = WHOLE[name].data
    path = OUT / f"header of {name}"
    path.write_bytes(spoil(data, number) if length < 0 else data[:length])
    header_at(str(path))


def header_at(path: str) -> None:
    """What the header of a DICOM file says."""
    found = read_headers([path])
    assert {len(column) for column in found.values()} == {1}


def _read(path: Path, data: bytes | None = None) -> np.ndarray:
    if data is not None:
        path.write_bytes(data)
    pixels = read_image(path)
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 2)
    assert pixels.size
    assert resize(pixels, 16).shape == (16, 16)
    return pixels
