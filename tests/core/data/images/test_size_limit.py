"""A decompression bomb is refused before its pixels are there, and the limit can be raised."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from core.data.images.decode import read_image
from core.data.images.size_limit import MAX_PIXELS, max_pixels
from core.errors import UserError
from tests.helpers.data.dicom_files import dicom
from tests.helpers.data.tiff_files import tiff
from tests.helpers.fuzz.image_files import saved

GREY = np.arange(2400, dtype=np.uint8).reshape(60, 40)
FILES = {
    "a.png": saved(GREY, "PNG"),
    "a.jpg": saved(GREY, "JPEG"),
    "a.tif": saved(GREY, "TIFF"),
    "deep.tif": saved(GREY.astype(np.uint16), "TIFF"),
    "a.dcm": dicom(GREY),
    "jpeg.dcm": dicom(GREY, saved(GREY, "JPEG"), uid.JPEGBaseline8Bit),
}


@pytest.mark.parametrize("name", FILES)
def test_the_limit_holds_for_every_kind_of_file_and_can_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert read_image(path).shape == (60, 40)
    monkeypatch.setenv("CXR_MAX_PIXELS", "2399")
    with pytest.raises(UserError, match=r"40 x 60 pixels, more than .* 2,399; .* CXR_MAX_PIXELS"):
        read_image(path)
    monkeypatch.setenv("CXR_MAX_PIXELS", " 2400 ")
    assert read_image(path).shape == (60, 40)
    monkeypatch.setenv("CXR_MAX_PIXELS", "")
    assert max_pixels() == MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("value", ["0", "-5", "1e9", "²", str(2**30 + 1), "9" * 99])
def test_a_limit_that_is_no_number_is_refused_and_no_image_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CXR_MAX_PIXELS", value)
    (tmp_path / "a.png").write_bytes(FILES["a.png"])
    with pytest.raises(UserError, match=r"^The environment variable CXR_MAX_PIXELS is"):
        read_image(tmp_path / "a.png")


def test_a_compressed_image_larger_than_its_dicom_header_is_refused(tmp_path: Path) -> None:
    jpeg = bytearray(saved(GREY, "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    jpeg2000 = bytearray(saved(GREY, "JPEG2000", no_jp2=True))
    jpeg2000[8:16] = struct.pack(">II", 60000, 60000)
    for frame, syntax in ((jpeg, uid.JPEGBaseline8Bit), (jpeg2000, uid.JPEG2000Lossless)):
        (tmp_path / "a.dcm").write_bytes(dicom(GREY, bytes(frame), syntax))
        with pytest.raises(UserError, match="40 x 60 pixels and its compressed image 60,000 x"):
            read_image(tmp_path / "a.dcm")
    # the header's own claim, with next to nothing behind it
    (tmp_path / "a.dcm").write_bytes(dicom(GREY, Rows=60000, Columns=60000))
    with pytest.raises(UserError, match="60,000 x 60,000 pixels, more than"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_is_no_way_around_the_limit(tmp_path: Path, bits: int) -> None:
    tags = {256: 9, 257: 9, 258: bits, 259: 8, 262: 1, 277: 1}
    body = zlib.compress(bytes(2**20))
    (tmp_path / "a.tif").write_bytes(tiff(tags | {322: 256, 323: 256}, body))
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.zeros((9, 9)))
    (tmp_path / "a.tif").write_bytes(tiff(tags | {322: 30000, 323: 30000}, body))
    with pytest.raises(UserError, match="30,000 x 30,000 pixels, more than the limit"):
        read_image(tmp_path / "a.tif")
