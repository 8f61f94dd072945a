"""DICOM pixels by the standard."""

import struct
import warnings
from itertools import accumulate
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom import uid

from tests.helpers.data.compressed_dicom import LOSSLESS, recompressed
from tests.helpers.data.dicom_files import (
    close,
    decode_error,
    dicom,
    element,
    linear,
    percentiles,
    read,
    table,
)

RANDOM = np.random.default_rng(0)
GREY = cv2.GaussianBlur(RANDOM.integers(0, 256, (60, 40), dtype=np.uint8), (0, 0), 2)
DEEP = RANDOM.integers(0, 4096, (60, 40), dtype=np.uint16)  # 12 bits
FULL = RANDOM.integers(0, 65536, (60, 40), dtype=np.uint16)
SIGNED = RANDOM.integers(-2048, 2048, (60, 40), dtype=np.int16)


def test_8_bits_without_window_are_kept() -> None:
    assert np.array_equal(read(dicom(GREY)), GREY)
    for name in ("MONOCHROME1", "monochrome1"):
        colours = element("PhotometricInterpretation", "CS", name)
        shown = read(dicom(GREY, PhotometricInterpretation=colours))
        assert np.array_equal(shown, 255 - GREY)
    assert np.array_equal(read(dicom(GREY.astype(np.uint16), BitsStored=8)), GREY)


@pytest.mark.parametrize(("values", "bits"), [(DEEP, 12), (FULL, 16), (SIGNED, 12), (SIGNED, 16)])
def test_more_bits_without_window_are_windowed_by_their_percentiles(
    values: np.ndarray, bits: int
) -> None:
    assert close(read(dicom(values, BitsStored=bits)), percentiles(values))
    inverted = dicom(values, BitsStored=bits, PhotometricInterpretation="MONOCHROME1")
    assert close(read(inverted), 255 - percentiles(values))


@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (3000.5, 1.5), (700, 1)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_linear_window(center: float, width: float, photometric: str) -> None:
    data = dicom(
        DEEP,
        BitsStored=12,
        WindowCenter=center,
        WindowWidth=width,
        PhotometricInterpretation=photometric,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = linear(DEEP.astype(float), center, width)
    assert close(read(data), 255 - expected if photometric == "MONOCHROME1" else expected)


@pytest.mark.parametrize(("values", "slope"), [(SIGNED, 0.5), (DEEP, -1), (GREY, -1)])
def test_rescaled_levels_without_a_window(values: np.ndarray, slope: float) -> None:
    data = dicom(values, RescaleSlope=slope, RescaleIntercept=255)
    assert close(read(data), percentiles(values.astype(float) * slope + 255))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("values", [DEEP, SIGNED])
def test_a_voi_lut_spans_black_to_white(values: np.ndarray, bits: int) -> None:
    # 1,024 entries from 100 on: below and above are the table's ends
    curve = np.round(np.sqrt(np.arange(1024) / 1023) * (2**bits - 1)).astype(np.uint16)
    data = dicom(
        values,
        VOILUTSequence=[table(curve, 100, bits)],
        WindowCenter=1,  # the table goes first
        WindowWidth=1,
    )
    expected = curve[np.clip(values.astype(int) - 100, 0, 1023)] / (2**bits - 1) * 255
    assert close(read(data), expected)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_voi_lut_of_plain_bytes(syntax: uid.UID) -> None:
    big = syntax == uid.ExplicitVRBigEndian
    curve = (np.arange(4096) // 2 + 5).astype(">u2" if big else "<u2")
    lut = table(curve, 0, 16, data="OW")
    stored = DEEP.byteswap() if big else DEEP
    data = dicom(DEEP, syntax=syntax, PixelData=stored.tobytes(), VOILUTSequence=[lut])
    assert close(read(data), (DEEP // 2) / 2047 * 255)


def test_a_voi_lut_of_8_bits_packed_in_words() -> None:
    curve = np.arange(256, dtype=np.uint8)[::-1]
    lut = table(curve, 0, 8, data="OW")
    assert np.array_equal(read(dicom(GREY, VOILUTSequence=[lut])), 255 - GREY)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_becomes_luma(planar: int) -> None:
    colour = RANDOM.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    stored = np.moveaxis(colour, 2, 0) if planar else colour
    data = dicom(colour, PlanarConfiguration=planar, PixelData=stored.tobytes())
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(data) - luma).max() <= 1
    neutral = np.dstack([GREY, np.full_like(GREY, 128), np.full_like(GREY, 128)])
    data = dicom(neutral, PhotometricInterpretation="YBR_FULL")
    for same in (data, recompressed(data, LOSSLESS["RLE"])):
        assert np.abs(read(same).astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_luma(bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    palette = RANDOM.integers(0, 2**bits, (256, 3)).astype(kind)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for number, name in enumerate(("Red", "Green", "Blue")):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = palette[:, number].tobytes()
    luma = palette[GREY] @ np.array([0.299, 0.587, 0.114]) / (2**bits - 1) * 255
    assert close(read(dicom(GREY, **elements)), luma)


def rle(*planes: np.ndarray, padding: tuple[bytes, ...] = ()) -> bytes:
    """A frame of these bytes, each a segment with its padding (PS3.5 G.5)."""
    pads = padding or (b"",) * len(planes)
    coded = [
        imagecodecs.packbits_encode(p.tobytes()) + q for p, q in zip(planes, pads, strict=True)
    ]
    starts = [*accumulate(map(len, coded), initial=64)][:-1]
    return struct.pack("<16I", len(coded), *starts, *[0] * (15 - len(coded))) + b"".join(coded)


@pytest.mark.parametrize("padding", [(b"\0\0", b"", b"\0"), (b"", b"\0" * 4, b"\0\0"), (b"",) * 3])
def test_segments_of_rle_may_be_padded(padding: tuple[bytes, ...]) -> None:
    colour = RANDOM.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    data = dicom(colour, rle(*np.moveaxis(colour, 2, 0), padding=padding), uid.RLELossless)
    assert np.abs(read(data) - colour @ np.array([0.299, 0.587, 0.114])).max() <= 1
    high, low = (FULL >> 8).astype(np.uint8), FULL.astype(np.uint8)
    frame = rle(high, low, padding=padding[:2])
    assert np.array_equal(read(dicom(FULL, frame, uid.RLELossless)), read(dicom(FULL)))


def test_damaged_rle_is_refused_with_a_remedy() -> None:
    whole = rle(GREY)
    for frame in (whole[:-50], rle(GREY, GREY), whole[:10], whole[:4] + b"\x20" + whole[5:]):
        message = decode_error(dicom(GREY, frame, uid.RLELossless))
        assert "its pixels, compressed as RLE Lossless, are damaged or not supported" in message
        assert "convert it to an uncompressed file" in message
    for name in ("SamplesPerPixel", "PixelRepresentation"):
        missing: dict[str, Any] = {name: None}
        message = decode_error(dicom(GREY, whole, uid.RLELossless, **missing))
        assert f"its header lacks the element {name}: export the file again" in message


@pytest.mark.parametrize(
    ("colours", "shape", "warns"),
    [
        ("MONOCHROME2", "inverse ", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "LIN OD", False),
    ],
)
def test_the_photometric_interpretation_is_followed(colours: str, shape: str, warns: bool) -> None:
    """C.7.6.3.1.2 and C.8.11.3.1.2; C.11.6 does not define how the lowest value is shown."""
    lut = element("PresentationLUTShape", "CS", shape)
    data = dicom(GREY, PhotometricInterpretation=colours, PresentationLUTShape=lut)
    with warnings.catch_warnings(record=True) as found:
        # as Python has it: each text once
        warnings.simplefilter("default")
        for _ in range(3):
            shown = read(data)
    assert np.array_equal(shown, 255 - GREY if colours == "MONOCHROME1" else GREY)
    texts = [str(one.message) for one in found if "Presentation" in str(one.message)]
    assert [colours in text for text in texts] == [True] * warns
