"""Pixel limit: decompression bombs are refused before decoding, and the limit can be raised."""

import struct
import zlib

import numpy as np
import pytest
from pydicom import uid

from core.data.images.decode import decode_image
from core.data.images.size_limit import MAX_PIXELS, max_pixels
from core.errors import UserError
from tests.helpers.data.dicom_files import decode_error, dicom
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
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert decode_image(FILES[name], name).shape == (60, 40)
    monkeypatch.setenv("CXR_MAX_PIXELS", "2399")
    with pytest.raises(UserError, match=r"40 x 60 pixels, more than .* 2,399; .* CXR_MAX_PIXELS"):
        decode_image(FILES[name], name)
    monkeypatch.setenv("CXR_MAX_PIXELS", " 2400 ")
    assert decode_image(FILES[name], name).shape == (60, 40)
    monkeypatch.setenv("CXR_MAX_PIXELS", "")
    assert max_pixels() == MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("value", ["0", "-5", "1e9", "²", str(2**30 + 1), "9" * 99])
def test_an_invalid_limit_is_refused_and_no_image_is_blamed(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CXR_MAX_PIXELS", value)
    with pytest.raises(UserError, match=r"^The environment variable CXR_MAX_PIXELS is"):
        decode_image(FILES["a.png"], "a.png")


def test_a_compressed_image_larger_than_its_dicom_header_is_refused() -> None:
    jpeg = bytearray(saved(GREY, "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    jpeg2000 = bytearray(saved(GREY, "JPEG2000", no_jp2=True))
    jpeg2000[8:16] = struct.pack(">II", 60000, 60000)
    for frame, syntax in ((jpeg, uid.JPEGBaseline8Bit), (jpeg2000, uid.JPEG2000Lossless)):
        message = decode_error(dicom(GREY, bytes(frame), syntax))
        assert "40 x 60 pixels and its compressed image 60,000 x 60,000" in message
    # the header's own claim, with next to nothing behind it
    assert "60,000 x 60,000 pixels, more than" in decode_error(
        dicom(GREY, Rows=60000, Columns=60000)
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_is_no_way_around_the_limit(bits: int) -> None:
    tags = {256: 9, 257: 9, 258: bits, 259: 8, 262: 1, 277: 1}
    body = zlib.compress(bytes(2**20))
    data = tiff(tags | {322: 256, 323: 256}, body)
    assert np.array_equal(decode_image(data, "a.tif"), np.zeros((9, 9)))
    with pytest.raises(UserError, match="30,000 x 30,000 pixels, more than the limit"):
        decode_image(tiff(tags | {322: 30000, 323: 30000}, body), "a.tif")
