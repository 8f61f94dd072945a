"""TIFF decoding against tifffile and the documented formulas, and refused files."""

import io
import itertools
import logging
import struct
import subprocess
import sys
import zlib
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from core.data.images.decode import decode_image
from core.errors import UserError
from tests.helpers.data.tiff_files import tiff
from tests.helpers.fuzz.image_files import windowed
from tests.helpers.training.small_run import ROOT

SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).random((40, 48, 4)), (0, 0), 3)
SMOOTH = (SMOOTH - SMOOTH.min()) / np.ptp(SMOOTH)
GREY = np.rint(SMOOTH[..., 0] * 255).astype(np.uint8)
DEEP = np.rint(SMOOTH[..., 0] * 60000).astype(np.uint16)
KINDS = [np.uint8, np.uint16, np.float32, np.int8, np.int16]
FORMATS = {"II": ("<", False), "MM": (">", False), "II big": ("<", True), "MM big": (">", True)}
HEAD: dict[int, Any] = {256: 48, 257: 40, 258: 8, 262: 1, 277: 1, 278: 40}
DEEP_HEAD = HEAD | {258: 16}


def stored(kind: type, count: int) -> np.ndarray:
    """Samples (H, W, S) over the whole range of a type."""
    values: np.ndarray = SMOOTH[..., :count]
    if np.issubdtype(kind, np.floating):
        return values.astype(kind)
    ends = np.iinfo(kind)
    return np.floor(values * (float(ends.max) - ends.min) + ends.min).astype(kind)


def expected(samples: np.ndarray) -> np.ndarray:
    """By the formulas: (H, W) of samples (H, W, S) as tifffile reads them."""
    grey = samples[..., 0].astype(float)
    if samples.shape[2] > 2:
        grey = samples[..., :3] @ [0.299, 0.587, 0.114]  # ITU-R 601-2
    return grey if samples.dtype == np.uint8 else windowed(grey)


def written(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def missed(data: bytes, truth: np.ndarray) -> float:
    """By how much what is read is off, at most; it is the same at each read."""
    pixels = decode_image(data, "a.tif")
    assert pixels.dtype == np.uint8
    assert pixels.shape == truth.shape
    assert np.array_equal(pixels, decode_image(data, "a.tif"))
    return float(np.abs(pixels - truth.astype(float)).max())


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "jpeg"])
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
def test_every_layout_of_samples(
    file: str, compression: str | None, tile: tuple[int, int] | None
) -> None:
    order, big = FORMATS[file]
    kinds = [np.uint8] if compression == "jpeg" else KINDS
    tried = 0
    for kind, count, planar in itertools.product(kinds, (1, 2, 3, 4), (False, True)):
        samples = stored(kind, count)
        if (count == 1 and planar) or (compression == "jpeg" and count == 4):
            continue
        data = written(
            np.moveaxis(samples, -1, 0) if planar else samples if count > 1 else samples[..., 0],
            photometric="rgb" if count > 2 else "minisblack",
            planarconfig=None if count == 1 else "separate" if planar else "contig",
            extrasamples=() if count % 2 else ("unassalpha",),
            compression=compression,
            tile=tile,
            rowsperstrip=None if tile else 8,
            byteorder=order,
            bigtiff=big,
            predictor=True if compression in ("lzw", "deflate") and not big else None,
        )
        with tifffile.TiffFile(io.BytesIO(data)) as opened:
            page = opened.pages.first
            assert (opened.byteorder, opened.is_bigtiff) == (order, big)
            assert page.planarconfig == (2 if planar else 1)
            read = page.asarray()
        read = np.moveaxis(read, 0, -1) if planar else read.reshape(samples.shape)
        # luma and quotients are rounded to whole levels
        assert missed(data, expected(read)) <= 1.01, (kind, count, planar)
        tried += 1
    assert tried == (5 if compression == "jpeg" else 35)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tag_of_a_single_byte(order: str) -> None:
    data = tiff(HEAD | {259: 1}, GREY.tobytes(), order=order)
    for tag, value in ((258, 8), (259, 1), (262, 1)):
        long = struct.pack(f"{order}HHII", tag, 4, 1, value)
        byte = struct.pack(f"{order}HHIB3x", tag, 1, 1, value)
        assert data.count(long) == 1
        assert missed(data.replace(long, byte), GREY) == 0


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_samples_of_any_width_of_which_zero_is_black_or_white(photometric: str) -> None:
    for kind in ("u1", "u2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"):
        values = GREY if kind == "u1" else (SMOOTH[..., 0] * 60000).astype(kind)
        shown = GREY.astype(float) if kind == "u1" else windowed(values)
        shown = shown if photometric == "minisblack" else 255 - shown
        data = written(values, photometric=photometric, compression="lzw", byteorder=">")
        assert missed(data, shown) <= 0.51, kind


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_of_predictor_3_that_are_not_finite(order: str) -> None:
    way: dict[str, Any] = {"compression": "deflate", "predictor": 3, "byteorder": order}
    for kind in ("f4", "f8", "f2"):
        values = (SMOOTH[..., 0] * 900 - 100).astype(kind)
        values[:4, 0] = np.nan, np.inf, -np.inf, np.nan
        low, high = np.percentile(values[np.isfinite(values)].astype(float), [0.5, 99.5])
        shown = np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255
        shown[:4, 0] = 0, 255, 0, 0
        assert missed(written(values, photometric="minisblack", **way), shown) <= 0.51, kind


def test_packed_samples() -> None:
    for bits in (1, 2, 3, 4, 6, 7, 9, 10, 12, 14):
        values = np.floor(SMOOTH[..., 0] * (2**bits - 0.01)).astype(np.uint16)
        pixels = values > 0 if bits == 1 else values.astype(np.uint8 if bits < 9 else np.uint16)
        data = written(pixels, photometric="minisblack", bitspersample=bits)
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), values)
        truth = windowed(values) if bits > 8 else values * (255 / (2**bits - 1))
        assert missed(data, truth) <= 0.51, bits


@pytest.mark.parametrize("bits", [4, 8])
def test_palettes_of_either_depth(bits: int) -> None:
    """In 16 bits as the standard wants, and in 8 as some writers do."""
    indices = GREY >> (8 - bits)
    rows = indices if bits == 8 else indices[:, ::2] << 4 | indices[:, 1::2]
    palette = np.random.default_rng(1).integers(0, 65536, (3, 2**bits))
    luma = np.array([0.299, 0.587, 0.114]) @ (palette // 256)
    for shown in (palette, palette // 256):
        data = tiff(HEAD | {258: bits, 262: 3, 320: shown.ravel().tolist()}, rows.tobytes())
        assert missed(data, luma[indices]) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_followed(orientation: int) -> None:
    for values in (GREY, DEEP):
        image = Image.fromarray(values)
        image.getexif()[274] = orientation
        upright = np.asarray(ImageOps.exif_transpose(image))
        tags = [(274, 3, 1, orientation, True)]
        data = written(
            values, photometric="minisblack", extratags=tags, bigtiff=True, byteorder=">"
        )
        assert missed(data, upright if values is GREY else windowed(upright)) <= 0.51


@pytest.mark.parametrize("way", ["raw", "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("mode", ["YCbCr", "RGB"])
def test_colour_spaces_that_pillow_writes(mode: str, way: str) -> None:
    image = Image.fromarray(np.rint(SMOOTH[..., :3] * 255).astype(np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression=way, **({"quality": 95} if way == "jpeg" else {}))
    luma = np.asarray(image.convert("RGB").convert("L"))
    assert missed(stream.getvalue(), luma) <= (8 if way == "jpeg" else 2)


def test_jpeg_of_12_bits() -> None:
    values = DEEP >> 4
    data = bytes(imagecodecs.jpeg_encode(values, level=98, bitspersample=12))
    assert missed(tiff(HEAD | {258: 12, 259: 7}, data), windowed(values)) <= 2


ENCODERS: dict[int, Any] = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: imagecodecs.packbits_encode,
    34925: imagecodecs.lzma_encode,
    50000: imagecodecs.zstd_encode,
}


def strips(compression: int, filled: bool) -> list[bytes]:
    """`DEEP` in strips of 16 rows, the last of 8 or filled up; JPEG of `GREY`."""
    values = np.vstack([GREY if compression == 7 else DEEP, np.zeros((8, 48), np.uint8)])
    parts = [values[row : row + 16][: 16 if filled else 40 - row] for row in (0, 16, 32)]
    if compression == 7:
        return [bytes(imagecodecs.jpeg_encode(part.astype("u1"), level=98)) for part in parts]
    return [bytes(ENCODERS[compression](part.astype("<u2").tobytes())) for part in parts]


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("compression", [7, *ENCODERS])
def test_a_strip_that_is_cut_short_or_missing_is_refused(compression: int, filled: bool) -> None:
    head = (HEAD if compression == 7 else DEEP_HEAD) | {259: compression, 278: 16}
    pieces = strips(compression, filled)
    truth = GREY if compression == 7 else windowed(DEEP)
    whole, lengths = tiff(head, *pieces), [len(piece) for piece in pieces]
    assert missed(whole, truth) <= (3 if compression == 7 else 0.51)
    for data in (
        tiff(head, *pieces, counts=[lengths[0], lengths[1] // 2, lengths[2]]),
        tiff(head, *pieces, counts=[0, *lengths[1:]]),
        tiff(head, *pieces[:2]),
        tiff(head, counts=lengths),
        whole[: len(whole) - lengths[2] // 2 - (384 if filled and compression == 1 else 0)],
    ):
        with pytest.raises(UserError, match=r"a\.tif cannot be read: .*(cut short|missing)"):
            decode_image(data, "a.tif")


REFUSED: dict[str, dict[int, Any]] = {
    "JPEG2000 (34712) is not supported: save it again": {259: 34712},
    "WEBP (50001) is not supported": {259: 50001},
    "OJPEG (6) is not supported": {259: 6},
    "compression 4711 is not supported": {259: 4711},
    "CIELAB (8) is not supported: save it as grey or RGB": {262: 8},
    "0 black or white": {262: b""},
    "64 bits and type COMPLEXIEEEFP (6) are not supported": {258: 64, 339: 6},
    "several sizes": {258: [5, 6, 5], 262: 2, 277: 3},
    "several types": {258: [8] * 3, 339: [1, 2, 1], 262: 2, 277: 3},
    "SEPARATED (5) is not supported: save it as grey or RGB": {262: 5, 277: 4},
    "2 samples a pixel, too few for its colour space RGB": {262: 2, 277: 2},
    "subsampled without JPEG": {262: 6, 277: 3, 530: [2, 2]},
    "predictor 2 is not supported": {317: 2},
    "stack of slices": {32997: 3},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_supported_is_refused_by_its_name(reason: str) -> None:
    with pytest.raises(UserError, match=r"^Image a\.tif cannot be read: [^\n]*\.$") as error:
        decode_image(tiff(HEAD | REFUSED[reason], GREY.tobytes() * 8), "a.tif")
    assert reason in str(error.value)


def test_a_thumbnail_is_refused_where_it_is_not_the_only_image() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, GREY, subfiletype=1)
    assert missed(stream.getvalue(), GREY) == 0
    stream.seek(0)
    tifffile.imwrite(stream, GREY, append=True)
    with pytest.raises(UserError, match="a thumbnail"):
        decode_image(stream.getvalue(), "a.tif")


@pytest.mark.parametrize("pixels", [np.ascontiguousarray(GREY.T), np.dstack([GREY] * 3)])
def test_a_jpeg_of_another_shape_than_its_strip_is_refused(pixels: np.ndarray) -> None:
    """Which tifffile would fill row by row."""
    data = tiff(HEAD | {259: 7}, bytes(imagecodecs.jpeg_encode(pixels)))
    with pytest.raises(UserError, match=r"of 48 x 40 pixels of 1 x 8 bits holds 4. x 4. of . x 8"):
        decode_image(data, "a.tif")


def test_nothing_is_printed_or_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of what is read nor of what is refused."""
    caplog.set_level(logging.DEBUG)
    body, noise = GREY.tobytes(), np.random.default_rng(2).bytes(500)
    odd: dict[int, Any] = {270: b"ImageJ=1\nimages=9", 34665: 9, 330: 8}
    odd |= {34412: b"x" * 99, 33628: b"y" * 9}
    assert np.array_equal(decode_image(tiff(HEAD | odd, body, following=8), "a.tif"), GREY)
    assert decode_image(tiff(HEAD | {277: 2, 338: 999}, body * 2), "a.tif").shape == (40, 48)
    broken = [HEAD | {259: way} for way in (5, 7, 8, 32773, 34925, 50000)]
    broken += [HEAD | {tag: 99} for tag in (258, 259, 262, 266, 277, 284, 317, 322, 339)]
    for tags in broken:
        with pytest.raises(UserError):
            decode_image(tiff(tags, noise), "a.tif")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_libraries_are_imported_late() -> None:
    code = "import sys; from core.data.images import decode\n"
    code += "assert not {'tifffile', 'imagecodecs', 'pydicom'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
