"""Decoding to 8-bit grey, and errors (never a black image) for unreadable files."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.data.images.decode import decode_image, load_image, read_image
from core.errors import UserError
from tests.helpers.fuzz.image_files import saved, windowed
from tests.helpers.fuzz.mutations import png

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (60, 40), dtype=np.uint8)
DEEP = RANDOM.integers(100, 4096, (60, 40), dtype=np.uint16)


def read(data: bytes, name: str = "image.png") -> np.ndarray:
    pixels = decode_image(data, name)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_8_bits_of_grey_are_kept_and_colour_becomes_luma(mode: str, kind: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(7)
    assert np.array_equal(read(saved(image, kind)), GREY)
    colour = Image.fromarray(RANDOM.integers(0, 256, (60, 40, 3), dtype=np.uint8))
    image = colour.quantize(64) if mode == "P" else colour.convert(mode)
    luma = np.asarray(image.convert("RGB")) @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(read(saved(image, kind)) - luma).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_first_image_alone_is_read_whatever_its_shape(kind: str) -> None:
    text = PngInfo()
    text.add_text("Comment", "A word. " * 9, zip=True)
    about = {"pnginfo": text, "icc_profile": b"x" * 99} if kind == "PNG" else {}
    for shape in ((60, 40), (1, 1), (1, 30_000), (30_000, 1)):
        pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
        more = [Image.fromarray(255 - pixels)]
        data = saved(Image.fromarray(pixels), kind, save_all=True, append_images=more, **about)
        assert np.array_equal(read(data), pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_1_and_16_bits(kind: str) -> None:
    """1 bit is black and white, 16 are windowed by their percentiles."""
    pixels = read(saved(Image.fromarray(GREY > 127), kind))
    assert np.array_equal(pixels, np.where(GREY > 127, 255, 0))
    pixels = read(saved(Image.fromarray(DEEP), kind))
    assert np.abs(pixels - windowed(DEEP)).max() <= 0.51


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_each_mode(mode: str) -> None:
    smooth = cv2.GaussianBlur(GREY, (0, 0), 4)
    data = saved(Image.fromarray(smooth).convert(mode), "JPEG", quality=95)
    assert np.abs(read(data, "a.jpg").astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    "values",
    [
        2**30 + DEEP.astype(np.int32) // 100,
        DEEP * 1e-300,
        DEEP * 1e300,
        1e9 + DEEP / 1e6,
        (DEEP - 2000.0) * 8e304,
    ],
    ids=["large integers", "tiny", "huge", "close", "both signs"],
)
def test_levels_that_are_close_or_extreme_stay_apart(values: np.ndarray) -> None:
    pixels = read(cv2.imencode(".tiff", values)[1].tobytes(), "a.tiff")
    # a smaller scale and zero for the formula
    plain = (values / 1e10 if values.max() > 1e250 else values).astype(float)
    assert np.abs(pixels - windowed(plain - plain.min())).max() <= 0.51


def test_floats_of_which_none_is_finite_are_refused() -> None:
    values = np.full((60, 40), np.nan, np.float32)
    with pytest.raises(UserError, match=r"image\.png.*no finite pixel"):
        read(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_are_not_cut_to_8_first(channels: int, ending: str) -> None:
    narrow = (DEEP // 40).astype(np.uint16)  # 100 levels, all below 256
    data = cv2.imencode(ending, np.dstack([narrow] * channels))[1].tobytes()
    assert np.abs(read(data) - windowed(narrow)).max() <= 1


def test_16_bits_of_grey_with_transparency() -> None:
    rows = np.dstack([DEEP, DEEP]).astype(">u2")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    assert np.abs(read(png(40, 60, 16, 4, body)) - windowed(DEEP)).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.filterwarnings("error")
def test_a_constant_image_and_one_with_a_few_other_pixels(dtype: type) -> None:
    values: np.ndarray = np.full((60, 60), 77, dtype)
    pixels = read(saved(Image.fromarray(values), "TIFF"))
    assert np.unique(pixels).tolist() == ([77] if dtype is np.uint8 else [0])
    values[3, 4:6] = 57, 97
    pixels = read(saved(Image.fromarray(values), "TIFF"))
    seen = [57, 97, 77] if dtype is np.uint8 else [0, 255, 128]
    assert pixels[3, 4:7].tolist() == seen
    assert np.unique(pixels).tolist() == sorted(seen)


def test_exif_does_not_rotate() -> None:
    clockwise = Image.Exif()
    clockwise[0x0112] = 6
    smooth = cv2.GaussianBlur(GREY, (0, 0), 4)
    for kind in ("JPEG", "PNG"):
        data = saved(Image.fromarray(smooth), kind, exif=clockwise)
        assert np.abs(read(data).astype(int) - smooth).max() <= 8


BIG_GREY = cv2.GaussianBlur(RANDOM.integers(0, 256, (300, 200), dtype=np.uint8), (0, 0), 1)
WHOLE = {
    "png": saved(Image.fromarray(BIG_GREY), "PNG"),
    "jpg": saved(Image.fromarray(BIG_GREY), "JPEG"),
    "progressive.jpg": saved(Image.fromarray(BIG_GREY), "JPEG", progressive=True),
    "tif": saved(Image.fromarray(BIG_GREY), "TIFF"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(name: str, kept: float) -> None:
    data = WHOLE[name]
    read(data, name)
    with pytest.raises(UserError, match=rf"Image {name} cannot be read"):
        read(data[: int(len(data) * kept)], name)


def test_a_png_that_is_damaged_or_lacks_rows_is_refused() -> None:
    data = bytearray(WHOLE["png"])
    data[len(data) // 2] ^= 255
    with pytest.raises(UserError, match=r"image\.png.*checksum"):
        read(bytes(data))
    rows = b"".join(b"\0" + row.tobytes() for row in GREY)
    assert np.array_equal(read(png(40, 60, 8, 0, zlib.compress(rows))), GREY)
    with pytest.raises(UserError, match=r"image\.png"):
        read(png(40, 60, 8, 0, zlib.compress(rows[: len(rows) // 2])))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_image(tmp_path)


def test_load_image_is_a_square_of_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE["png"])
    for size, way in ((32, cv2.INTER_AREA), (448, cv2.INTER_LINEAR)):
        expected = cv2.resize(BIG_GREY, (size, size), interpolation=way)
        assert np.array_equal(load_image(tmp_path / "a.png", size), expected)
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(BIG_GREY[:200]), "PNG"))
    assert np.array_equal(load_image(tmp_path / "a.png", 200), BIG_GREY[:200])


@pytest.mark.parametrize(
    ("folder", "ending"), [("nih1024", "png"), ("nih1000", "jpg"), ("nih64", "png")]
)
def test_real_radiographs_are_read_as_pillow_reads_them(
    real_data: Path, folder: str, ending: str
) -> None:
    files = sorted((real_data / folder / "images").glob(f"*.{ending}"))[:20]
    assert files
    for file in files:
        with Image.open(file) as image:
            assert np.array_equal(read_image(file), np.asarray(image.convert("L")))


def test_bytes_of_a_tiff_that_look_like_scans_of_a_jpeg() -> None:
    """These tags count only where a TIFF holds JPEG."""
    pixels = np.full((3000, 3000), 0xDA, dtype=np.uint8)
    pixels[:, ::2] = 0xFF
    data = saved(Image.fromarray(pixels), "TIFF")
    assert data.count(b"\xff\xda") > 1_000_000
    assert (read(data) == pixels).all()


def test_a_tiff_of_many_jpeg_strips_is_read() -> None:
    """Each of them has a scan of its own, over its own pixels alone."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    pixels = noise.repeat(100, axis=0).repeat(100, axis=1)
    data = saved(Image.fromarray(pixels), "TIFF", compression="jpeg", strip_size=3000 * 8)
    assert data.count(b"\xff\xda") > 360
    assert np.abs(read(data).astype(int) - pixels).mean() < 5
