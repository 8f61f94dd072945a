"""Compressed DICOM files, and error messages for invalid ones."""

from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import uid
from pydicom.pixels import get_decoder

from core.data.images.dicom.header import INSTALL
from tests.helpers.data.compressed_dicom import LOSSLESS, recompressed
from tests.helpers.data.dicom_files import (
    close,
    dataset,
    decode_error,
    dicom,
    element,
    percentiles,
    read,
    table,
)
from tests.helpers.fuzz.image_files import saved

RANDOM = np.random.default_rng(0)
GREY = cv2.GaussianBlur(RANDOM.integers(0, 256, (60, 40), dtype=np.uint8), (0, 0), 2)
DEEP = RANDOM.integers(0, 4096, (60, 40), dtype=np.uint16)  # 12 bits
FULL = RANDOM.integers(0, 65536, (60, 40), dtype=np.uint16)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("values", "bits"), [(GREY, 8), (DEEP, 12), (FULL, 16)])
def test_what_is_compressed_without_loss_is_the_same(
    syntax: str, values: np.ndarray, bits: int
) -> None:
    data = recompressed(dicom(values, BitsStored=bits), LOSSLESS[syntax])
    assert len(data) != len(dicom(values, BitsStored=bits))
    expected = values.astype(float) if bits == 8 else percentiles(values)
    assert close(read(data), expected)


@pytest.mark.parametrize("bare", [True, False], ids=["codestream", "JP2 file"])
def test_jpeg_2000_by_another_encoder(bare: bool) -> None:
    frame = saved(DEEP, "JPEG2000", no_jp2=bare)
    data = dicom(DEEP, frame, uid.JPEG2000Lossless)
    assert close(read(data), percentiles(DEEP))


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_of_8_bits_under_a_header_of_8_or_12(syntax: uid.UID) -> None:
    data = dicom(GREY, saved(GREY, "JPEG", quality=95, comment=b"a comment"), syntax)
    assert np.abs(read(data).astype(int) - GREY).max() <= 4
    data = dicom(DEEP, saved(GREY, "JPEG", quality=95), syntax, BitsStored=12)
    assert np.abs(read(data) - percentiles(GREY)).max() <= 12


def test_compressed_colour() -> None:
    colour = np.dstack([GREY, 255 - GREY, GREY // 2])
    luma = colour @ np.array([0.299, 0.587, 0.114])
    frame = saved(colour, "JPEG", quality=95, subsampling=0)
    data = dicom(colour, frame, uid.JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(read(data) - luma).max() <= 5
    frame = saved(colour, "JPEG2000", no_jp2=True)
    data = dicom(colour, frame, uid.JPEG2000Lossless, PhotometricInterpretation="YBR_RCT")
    assert np.abs(read(data) - luma).max() <= 1


def deep_jpeg() -> bytes:
    """The beginning of a JPEG of 12 bits, by ITU-T T.81 B.2.2."""
    return b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x3c\0\x28\x01\x01\x11\0\xff\xd9"


@pytest.mark.parametrize(
    ("syntax", "frame", "plugin"),
    [
        (uid.JPEGLosslessSV1, saved(GREY, "JPEG"), "python-gdcm"),
        (uid.HTJ2KLossless, saved(GREY, "JPEG2000"), "pylibjpeg-openjpeg"),
        (uid.JPEGExtended12Bit, deep_jpeg(), "pylibjpeg-libjpeg"),
        (uid.JPEGBaseline8Bit, deep_jpeg(), "pylibjpeg-libjpeg"),
    ],
)
def test_a_missing_plug_in_is_named(
    monkeypatch: pytest.MonkeyPatch, syntax: uid.UID, frame: bytes, plugin: str
) -> None:
    deep = frame == deep_jpeg()
    monkeypatch.setattr(get_decoder(syntax), "_available", {"gdcm": None} if deep else {})
    message = decode_error(dicom(GREY, frame, syntax))
    assert f"{syntax.name}, which needs the plug-in {plugin}" in message
    assert message.endswith("pip install pylibjpeg-libjpeg." if deep else f"{INSTALL}.")


def test_without_pydicom_the_install_command_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.images.dicom.header.find_spec", lambda _: None)
    assert decode_error(dicom(GREY)).endswith(
        'pydicom is not installed: pip install -c constraints.txt -e ".[dicom]".'
    )


def segmented_palette() -> bytes:
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"Segmented{colour}PaletteColorLookupTableData"] = b"\0\1\0\1\xff\xff"
    return dicom(GREY, **palette)


COLOUR = np.dstack([GREY] * 3)
SINGLE = GREY.astype(np.float32).tobytes()
REMEDY = "convert it to an uncompressed file, as dcmdjpeg and gdcmconv --raw do"
REFUSED: list[tuple[str, bytes]] = [
    ("without pixels: Basic Text SR Storage", dataset(SOPClassUID=uid.BasicTextSRStorage)),
    ("pixels: Digital X-Ray Image Storage - For Presentation", dicom(GREY, PixelData=None)),
    ("floating-point", dicom(GREY, PixelData=None, FloatPixelData=SINGLE)),
    ("12 frames, and only single", dicom(GREY, NumberOfFrames=12, PixelData=GREY.tobytes() * 12)),
    ("its palette is segmented, which is not supported: convert it", segmented_palette()),
    (REMEDY, dicom(GREY, saved(GREY, "JPEG"), uid.MPEG2MPML)),
    ("its colours are 'RGB' and its samples per", dicom(GREY, PhotometricInterpretation="RGB")),
    ("its colours are 'MONO", dicom(COLOUR, PhotometricInterpretation="MONOCHROME2")),
    ("has several colours", dicom(GREY, saved(COLOUR, "JPEG2000"), uid.JPEG2000Lossless)),
    ("HSV", dicom(COLOUR, PhotometricInterpretation="HSV")),
    ("rows and columns", dicom(GREY, Columns=None)),
    ("32 bits", dicom(DEEP.astype(np.uint32))),
    ("VOI LUT Function CUBIC", dicom(DEEP, WindowCenter=9, WindowWidth=5, VOILUTFunction="CUBIC")),
    ("Rescale Slope", dicom(DEEP, RescaleSlope=0, RescaleIntercept=1)),
    ("its RescaleSlope is 'abc'", dicom(DEEP, RescaleSlope=element("RescaleSlope", "DS", "abc"))),
    ("40 of its 99 entries", dicom(DEEP, VOILUTSequence=[table(DEEP[0], 0, 12, count=99)])),
]


@pytest.mark.parametrize(("sentence", "data"), REFUSED, ids=[one for one, _ in REFUSED])
def test_what_is_not_read_is_refused_by_one_sentence(sentence: str, data: bytes) -> None:
    assert sentence in decode_error(data)
