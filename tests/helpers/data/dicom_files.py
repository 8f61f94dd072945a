"""DICOM files made by pydicom and their decoded pixels, for tests."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from core.data.images.decode import decode_image
from core.errors import UserError


def dicom(
    pixels: np.ndarray,
    frame: bytes | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> bytes:
    """A file of these pixels, or of the compressed `frame` that stands for them; `elements` over
    what describes the pixels, without those that are None."""
    bits = 8 * pixels.itemsize
    described = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": elements.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "PlanarConfiguration": None if pixels.ndim == 2 else 0,
        "PixelData": pixels.tobytes() if frame is None else encapsulate([frame]),
    }
    return dataset(syntax, **described | elements)


def dataset(syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A file of these elements, without those that are None; those of `element` as they are."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = generate_uid()
    for name, value in elements.items():
        if isinstance(value, DataElement):
            made[name] = value
        elif value is not None:
            setattr(made, name, value)
    if "PixelData" in made:
        made["PixelData"].VR = "OB" if made.BitsAllocated <= 8 or syntax.is_compressed else "OW"
    stream = io.BytesIO()
    dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


def data_set(data: bytes) -> bytes:
    """The data set of a file, without preamble and meta information."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


def element(name: str, kind: str, value: Any) -> DataElement:
    """An element of that value representation, which the standard may forbid."""
    return DataElement(name, kind, value, already_converted=True)


def table(
    entries: np.ndarray,
    first: int,
    bits: int = 16,
    *,
    data: str = "US",
    descriptor: str = "SS",
    count: int | None = None,
) -> Dataset:
    """An item of a sequence of look-up tables, of these value representations; `count` is another
    number of entries than there are."""
    made = Dataset()
    described = [(count or len(entries)) % 2**16, first, bits]
    made["LUTDescriptor"] = element("LUTDescriptor", descriptor, described)
    as_numbers = data == "US"
    made.add_new("LUTData", data, entries.astype(int).tolist() if as_numbers else entries.tobytes())
    return made


def read(data: bytes) -> np.ndarray:
    """Pixels that `decode_image` returns for this file."""
    pixels = decode_image(data, "image.dcm")
    assert pixels.dtype == np.uint8
    return pixels


def decode_error(data: bytes) -> str:
    """Error message of `decode_image` for this file."""
    with pytest.raises(UserError, match=r"^Image image\.dcm cannot be read: .*\.$") as error:
        read(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def close(pixels: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two images differ by rounding only."""
    return pixels.shape == expected.shape and bool(np.abs(pixels - expected).max() <= 0.51)


def percentiles(values: np.ndarray) -> np.ndarray:
    """Values scaled from the 0.5 and 99.5 percentiles to 0 and 255."""
    low, high = np.percentile(values, [0.5, 99.5])
    return np.clip((values - low) / (high - low), 0, 1) * 255


def linear(x: np.ndarray, center: float, width: float) -> np.ndarray:
    """Linear window by PS3.3 C.11.2.1.2.1."""
    y = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    y = np.where(x <= center - 0.5 - (width - 1) / 2, 0, y)
    return np.where(x > center - 0.5 + (width - 1) / 2, 255, y)
