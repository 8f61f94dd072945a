"""DICOM padding, windows, look-up tables, stored bits and signs by the formulas of PS3.3 and
PS3.5, in files that violate the standard."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite, uid
from pydicom.data import get_testdata_file

from core.data.images.decode import read_image
from tests.helpers.data.compressed_dicom import LOSSLESS, recompressed
from tests.helpers.data.dicom_files import (
    close,
    dicom,
    element,
    linear,
    percentiles,
    read,
    table,
)
from tests.helpers.fuzz.image_files import saved

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(1000, 3000, (60, 40), dtype=np.uint16)
SIGNED = RANDOM.integers(-900, 900, (60, 40), dtype=np.int16)
SMOOTH = np.add.outer(np.arange(60), np.arange(40)) / 98  # 0 to 1


def bordered(pixels: np.ndarray, padding: int) -> np.ndarray:
    """The pixels with ten rows of padding at the top."""
    made = pixels.copy()
    made[:10] = np.array(padding).astype(pixels.dtype)
    return made


@pytest.mark.parametrize(("kind", "written"), [("SS", -1), ("US", 65535), ("US", 63536)])
@pytest.mark.parametrize("lossy", [None, "01"])
def test_padding_of_16_bits_is_not_a_level_of_12(
    kind: str, written: int, lossy: str | None
) -> None:
    """Saturated pixels of 12 bits are white, whatever padding was declared and not used."""
    pixels = DEEP.copy()
    pixels[20:30, 20:30] = 4095
    padding = element("PixelPaddingValue", kind, written)
    data = dicom(pixels, BitsStored=12, PixelPaddingValue=padding, LossyImageCompression=lossy)
    assert close(read(data), percentiles(pixels))


def test_levels_near_to_padding_that_fills_no_area_are_image() -> None:
    ramp = np.arange(2400, dtype=np.uint16).reshape(60, 40)
    data = dicom(ramp, BitsStored=12, PixelPaddingValue=1200, LossyImageCompression="01")
    shown, expected = read(data), percentiles(ramp)
    assert close(shown[ramp != 1200], expected[ramp != 1200])


# C.7.5.1.1.2: padding is a stored value, and no part of the image
@pytest.mark.parametrize(
    ("pixels", "bits", "stored", "kind", "written"),
    [
        (SIGNED, 16, -2000, "US", 63536),
        (DEEP, 16, 63536, "SS", -2000),
        (SIGNED, 12, -2000, "US", 2096),
        ((SIGNED // 10).astype(np.int8), 8, -100, "US", 156),
        (SIGNED, 16, -2000, "SS", [-2000, 7]),
    ],
)
@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_found_by_its_bits(
    pixels: np.ndarray,
    bits: int,
    stored: int,
    kind: str,
    written: Any,
    colours: str,
) -> None:
    data = dicom(
        bordered(pixels, stored),
        BitsStored=bits,
        PhotometricInterpretation=colours,
        PixelPaddingValue=element("PixelPaddingValue", kind, written),
    )
    shown, expected = read(data), percentiles(pixels[10:])
    assert close(shown[10:], 255 - expected if colours == "MONOCHROME1" else expected)
    assert not shown[:10].any()


@pytest.mark.parametrize("ends", [(63536, 63636), (63636, 63536), (-1900, 63536)])
def test_a_range_of_padding_in_either_order(ends: tuple[int, int]) -> None:
    pixels = bordered(SIGNED, -2000)
    pixels[:5] = -1900
    limits: dict[str, Any] = {
        name: element(name, "US" if end > 0 else "SS", end)
        for name, end in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), ends, strict=True)
    }
    shown = read(dicom(pixels, **limits))
    assert close(shown[10:], percentiles(SIGNED[10:]))
    assert not shown[:10].any()


@pytest.mark.parametrize("value", [element("PixelPaddingValue", "US", None), 9, 70])
def test_padding_that_is_blank_absent_or_everything_is_none(value: Any) -> None:
    # of 4 bits, of which no level is 70
    pixels = np.full((60, 40), 9, dtype=np.uint8)
    data = dicom(pixels, BitsStored=4, HighBit=3, PixelPaddingValue=value, PixelPaddingRangeLimit=9)
    assert np.array_equal(read(data), read(dicom(pixels, BitsStored=4)))


def test_padding_is_black_through_a_window_and_in_8_bits() -> None:
    grey = RANDOM.integers(50, 200, (60, 40), dtype=np.uint8)
    inverse: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    window: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1500}
    shown = linear(DEEP.astype(float), 2000, 1500)
    for pixels, expected, more in ((grey, grey, {}), (DEEP, shown, window)):
        found = read(dicom(bordered(pixels, 0), **inverse, **more))
        assert close(found[10:], 255.0 - expected[10:])
        assert not found[:10].any()


@pytest.mark.parametrize("kept", [{}, {"LossyImageCompression": "01"}])
@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_that_was_compressed_with_loss(kept: dict[str, Any], colours: str) -> None:
    native = np.add.outer(np.arange(400), np.arange(300)) * 4 + 900
    pixels = (native + RANDOM.integers(0, 40, native.shape)).astype(np.uint16)
    pixels[:80] = 0
    options: dict[str, Any] = {"no_jp2": True, "irreversible": True, "quality_mode": "rates"}
    frame = saved(pixels, "JPEG2000", quality_layers=[15], **options)
    about: dict[str, Any] = {"PixelPaddingValue": 0, "PhotometricInterpretation": colours}
    data = dicom(pixels, frame, uid.JPEG2000, BitsStored=12, **about)
    if kept:  # decompressed since
        values = dcmread(io.BytesIO(data)).pixel_array
        data = dicom(values, BitsStored=12, **about, **kept)
    shown, expected = read(data), percentiles(native[80:])[10:]
    expected = 255 - expected if colours == "MONOCHROME1" else expected
    assert np.abs(shown[90:] - expected).max() < 12
    assert (shown[:70] == 0).all()


def exact(x: np.ndarray, center: float, width: float) -> np.ndarray:
    return np.clip((x - center) / width + 0.5, 0, 1) * 255  # C.11.2.1.3.2


def sigmoid(x: np.ndarray, center: float, width: float) -> np.ndarray:
    return 255 / (1 + np.exp(-4 * (x - center) / width))  # C.11.2.1.3.1


def windowed(center: Any, width: Any, kind: str = "DS", **elements: Any) -> bytes:
    return dicom(
        DEEP,
        BitsStored=12,
        WindowCenter=element("WindowCenter", kind, center),
        WindowWidth=element("WindowWidth", kind, width),
        **elements,
    )


@pytest.mark.parametrize(
    ("center", "width", "kind"),
    [
        ("0\\2000", "-7\\1500", "DS"),
        ("0\\2000", "0.5\\1500", "DS"),
        ("0\\2000", "inf\\1500", "DS"),
        ("nan\\2000", "9\\1500", "DS"),
        ("0\\2000", "wide\\1500", "DS"),
        ("\\2000", "\\1500", "DS"),
        ("0\\0\\2000\\9", "0\\0\\1500\\9", "DS"),
        ("2000,0\\9", "1500,0\\9", "DS"),
        (" 2000 ", "1.5E3 ", "DS"),
        ("2000\\9", "1500", "DS"),
        (2000, 1500, "US"),
        (2000.0, 1500.0, "FD"),
        ("2000", "1500", "LO"),
    ],
)
def test_the_first_valid_window_is_taken(center: Any, width: Any, kind: str) -> None:
    shown = read(windowed(center, width, kind))
    assert close(shown, linear(DEEP.astype(float), 2000, 1500))


def test_without_a_valid_window_the_percentiles_are_taken() -> None:
    for pair in (("0\\1", "0\\-1"), ("", ""), ("x", "y"), ("2000", "nan"), (",", ",")):
        assert close(read(windowed(*pair)), percentiles(DEEP))


@pytest.mark.parametrize(
    ("function", "formula"),
    [(" Linear ", linear), ("", linear), ("Linear Exact", exact), ("Sigmoid\\LINEAR", sigmoid)],
)
def test_the_window_function_in_any_spelling(function: str, formula: Any) -> None:
    data = windowed("2000", "50", VOILUTFunction=element("VOILUTFunction", "CS", function))
    assert close(read(data), formula(DEEP.astype(float), 2000, 50))


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [("0,5", "-100,5", (0.5, -100.5)), (" 2 ", "", (2, 0)), ("", "1000,0", (1, 1000))],
)
def test_rescaling_with_commas_and_blanks(
    slope: str, intercept: str, expected: tuple[float, float]
) -> None:
    rescale: dict[str, Any] = {
        name: element(name, "DS", text)
        for name, text in (("RescaleSlope", slope), ("RescaleIntercept", intercept))
    }
    values = DEEP.astype(float) * expected[0] + expected[1]
    shown = read(windowed("2000", "3500", **rescale))
    assert close(shown, linear(values, 2000, 3500))


def broken_tables() -> list[list[Dataset]]:
    """Sequences without a complete look-up table."""
    found: list[list[Dataset]] = [[], [Dataset()]]
    for name, value in (("LUTDescriptor", None), ("LUTData", None), ("LUTData", b"")):
        made = table(np.arange(4096)[::-1], 0)
        del made[name]
        if value is not None:
            made[name] = element(name, "US", value)
        found.append([made])
    return found


@pytest.mark.parametrize("broken", broken_tables())
def test_a_sequence_without_a_look_up_table_is_ignored(broken: list[Dataset]) -> None:
    elements: dict[str, Any] = {"WindowCenter": 900, "WindowWidth": 700}
    elements |= {"RescaleSlope": 0.5, "RescaleIntercept": -100}
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        shown = read(dicom(DEEP, **(elements | {name: broken})))
        assert close(shown, linear(DEEP * 0.5 - 100, 900, 700))
    entries = (np.sqrt(np.arange(4096)) * 60).astype(int)
    luts = [*broken, table(entries, 0)]
    shown = read(dicom(DEEP, BitsStored=12, VOILUTSequence=luts))
    assert close(shown, entries[DEEP] / entries.max() * 255)


# C.11.1.1, C.11.2.1.1: entries, first value mapped, bits; 0 entries are 65,536
@pytest.mark.parametrize(
    ("pixels", "count", "first", "written", "kind"),
    [
        (DEEP, 65536, 0, 0, "US"),
        (SIGNED, 2000, -1000, -1000, "SS"),
        (SIGNED, 2000, -1000, 64536, "US"),
        (SIGNED, 65536, -32768, -32768, "SS"),
        (DEEP + 39_000, 4096, 40_000, 40_000 - 65536, "SS"),
    ],
)
def test_look_up_tables_of_any_first_value(
    pixels: np.ndarray, count: int, first: int, written: int, kind: str
) -> None:
    curve = np.floor(np.sqrt(np.linspace(0, 1, count)) * 62500)
    pixels = pixels.astype(SIGNED.dtype if first < 0 else np.uint16)
    values = curve[np.clip(pixels.astype(int) - first, 0, count - 1)]
    lut = table(curve, written, descriptor=kind)
    voi = read(dicom(pixels, VOILUTSequence=[lut]))
    assert close(voi, values / 62500 * 255)
    window: dict[str, Any] = {"WindowCenter": 30000, "WindowWidth": 40000}
    modality = read(dicom(pixels, ModalityLUTSequence=[lut], **window))
    assert close(modality, linear(values, 30000, 40000))


def test_a_voi_lut_after_rescaling_to_fractions() -> None:
    curve = np.arange(4096) ** 2 // 300
    rescale: dict[str, Any] = {"RescaleSlope": 0.7, "RescaleIntercept": 0}
    shown = read(dicom(DEEP, VOILUTSequence=[table(curve, 0)], **rescale))
    assert close(shown, curve[np.rint(DEEP * 0.7).astype(int)] / curve.max() * 255)


# PS3.5 8.1.1
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
@pytest.mark.parametrize("pixels", [DEEP, SIGNED])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_only_stored_bits_are_shown(pixels: np.ndarray, high: int, syntax: uid.UID) -> None:
    stored = 0xFFF << (high - 11)
    word = pixels.astype(int) << (high - 11) & stored
    overlay = RANDOM.integers(0, 2**16, word.shape) & ~stored
    words = (word | overlay).astype(np.uint16).view(pixels.dtype)
    data = dicom(words, BitsStored=12, HighBit=high)
    if syntax == uid.RLELossless:
        # GDCM moves the bits
        compressed, made = dcmread(io.BytesIO(data)), io.BytesIO()
        compressed.compress(syntax, encoding_plugin="pydicom")
        dcmwrite(made, compressed)
        data = made.getvalue()
    assert close(read(data), percentiles(pixels))


# PS3.5 8.2.4: the bit stream defines its decoding
@pytest.mark.parametrize(
    ("pixels", "header"),
    [
        ((SMOOTH * 3000 - 1000).astype(np.int16), 0),
        ((SMOOTH * 60000 - 30000).astype(np.int16), 0),
        ((SMOOTH * 250 - 120).astype(np.int8), 0),
        (SIGNED, 0),
        ((SMOOTH * 60000).astype(np.uint16), 1),
        ((SMOOTH * 250).astype(np.uint8), 1),
    ],
)
def test_jpeg_2000_of_another_sign_than_its_header(pixels: np.ndarray, header: int) -> None:
    made = dcmread(io.BytesIO(recompressed(dicom(pixels), LOSSLESS["JPEG 2000"])))
    assert made.file_meta.TransferSyntaxUID == uid.JPEG2000Lossless
    made.PixelRepresentation = header
    dcmwrite(stream := io.BytesIO(), made)
    shown = read(stream.getvalue())
    kept = pixels.dtype == np.uint8
    assert close(shown, pixels if kept else percentiles(pixels.astype(float)))


def test_signed_pixels_in_an_unsigned_jpeg_2000() -> None:
    path = get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)
    assert isinstance(path, str)
    known = dcmread(path)
    values = known.pixel_array.astype(float)
    assert values.min() == -2000
    center, width = (
        float(np.atleast_1d(known[name].value)[0]) for name in ("WindowCenter", "WindowWidth")
    )
    shown = read_image(path)
    inside = values > -2000
    assert close(shown[inside], linear(values[inside], center, width))
    assert not shown[~inside].any()
