"""Readers of corrupted images in the child: make the file, read it, check the result."""

import os
from pathlib import Path

import numpy as np

from core.data.images.decode import read_image, resize
from core.data.images.dicom.header import read_headers
from tests.helpers.fuzz.dicom_bytes import sound_dicom
from tests.helpers.fuzz.image_files import sound_images
from tests.helpers.fuzz.mutations import spoil

OUT = Path(os.environ["FUZZ_OUT"])
# before the first fork
SOUND = sound_images() | sound_dicom()


def cut(name: str, length: int) -> None:
    """A truncated file is refused, or its missing part held no pixels."""
    pixels = _read(OUT / name, SOUND[name][:length])
    assert np.array_equal(pixels, _read(OUT / name, SOUND[name])), "pixels are lost in silence"


def spoiled(name: str, number: int) -> None:
    """A corrupted file is refused, or still has content; number 0 changes nothing."""
    pixels = _read(OUT / name, spoil(SOUND[name], number))
    varied = pixels.size < 9 or pixels.min() < pixels.max()
    assert varied or name.startswith("one"), "it is constant"


def at(path: str) -> None:
    """Read the file at this path, of any kind."""
    _read(Path(path))


def shown(path: str) -> None:
    """An image of noise at this path."""
    pixels = _read(Path(path))
    assert pixels.size < 30 or pixels.min() < pixels.max(), "it is constant"


def headers(name: str, length: int, number: int) -> None:
    """Header values of a DICOM file cut to `length`, or corrupted if that is -1."""
    data = SOUND[name]
    path = OUT / f"header of {name}"
    path.write_bytes(spoil(data, number) if length < 0 else data[:length])
    header_at(str(path))


def header_at(path: str) -> None:
    """Header values of a DICOM file."""
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
