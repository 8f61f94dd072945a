"""Whole small images of every kind, with what is to be read from them, and images no one wants."""

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tests.helpers.data.tiff_files import tiff
from tests.helpers.fuzz.mutations import chunk, png

SHAPE = (22, 18)
RANDOM = np.random.default_rng(7)
GREY = cv2.GaussianBlur(RANDOM.integers(0, 256, SHAPE, dtype=np.uint8), (0, 0), 2)
GREY = ((GREY - GREY.min()) * (255 / np.ptp(GREY))).astype(np.uint8)
NOISE = RANDOM.integers(0, 256, SHAPE, dtype=np.uint8)
DEEP = RANDOM.integers(100, 60000, SHAPE, dtype=np.uint16)


@dataclass(frozen=True, eq=False)
class Whole:
    """A file that is sound, what is to be read, and by how much a codec may miss it."""

    data: bytes
    pixels: np.ndarray
    miss: float = 0.51


def windowed(values: np.ndarray) -> np.ndarray:
    """The percentiles 0.5 and 99.5 of the finite values as 0 and 255, by the formula."""
    low, high = np.percentile(values[np.isfinite(values)].astype(float), [0.5, 99.5])
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """An image as Pillow writes it."""
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@cache
def whole_images() -> dict[str, Whole]:
    """Whole files by name."""
    image, quarter = Image.fromarray(NOISE), Image.Exif()
    quarter[0x0112] = 6
    clear = image.convert("RGBA")
    clear.putalpha(7)
    palette = image.convert("P")
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "A word. " * 9, zip=True)
    floats = (DEEP.astype(np.float32) - 30000) / 7
    wrong = floats.copy()
    wrong[0, :3] = np.nan, np.inf, -np.inf
    black = NOISE > 127
    files = {
        "l.png": Whole(saved(NOISE, "PNG"), NOISE),
        "la.png": Whole(saved(image.convert("LA"), "PNG"), NOISE),
        "rgba.png": Whole(saved(clear, "PNG"), NOISE),
        "p.png": Whole(saved(palette, "PNG", transparency=3), NOISE),
        "1.png": Whole(saved(black, "PNG"), black * 255),
        "16.png": Whole(saved(DEEP, "PNG"), windowed(DEEP)),
        "rgb16.png": Whole(
            cv2.imencode(".png", np.dstack([DEEP] * 3))[1].tobytes(), windowed(DEEP), 1.0
        ),
        "told.png": Whole(
            saved(image.convert("RGB"), "PNG", pnginfo=told, icc_profile=b"x" * 99), NOISE
        ),
        "exif.png": Whole(saved(NOISE, "PNG", exif=quarter), NOISE),
        "animated.png": Whole(
            saved(image, "PNG", save_all=True, append_images=[clear.convert("L")]), NOISE
        ),
    }
    for mode in ("L", "RGB", "CMYK"):
        data = saved(Image.fromarray(GREY).convert(mode), "JPEG", quality=95)
        files[f"{mode.lower()}.jpg"] = Whole(data, GREY, 10)
    files["progressive.jpg"] = Whole(saved(GREY, "JPEG", quality=95, progressive=True), GREY, 10)
    files["exif.jpg"] = Whole(saved(GREY, "JPEG", quality=95, exif=quarter), GREY, 10)
    for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_ccitt"):
        bits = black if way == "tiff_ccitt" else NOISE
        data = saved(bits, "TIFF", compression=way)
        files[f"{way}.tif"] = Whole(data, bits * 255 if way == "tiff_ccitt" else bits)
    values: dict[str, np.ndarray] = {
        "16": DEEP,
        "32": DEEP.astype(np.int32) * 9000 - 7,
        "float": floats,
    }
    for name, pixels in values.items():
        files[f"{name}.tif"] = Whole(saved(pixels, "TIFF"), windowed(pixels))
    data = cv2.imencode(".tiff", floats.astype(np.float64))[1].tobytes()
    files["double.tif"] = Whole(data, windowed(floats))
    shown = windowed(wrong)
    shown[0, :3] = 0, 255, 0
    files["nan.tif"] = Whole(saved(wrong, "TIFF"), shown)
    files["pages.tif"] = Whole(
        saved(image, "TIFF", save_all=True, append_images=[image.rotate(90)]), NOISE
    )
    files["rgb.tif"] = Whole(saved(image.convert("RGB"), "TIFF"), NOISE)
    files["big.tif"] = Whole(saved(NOISE, "TIFF", big_tiff=True), NOISE)
    files["jpeg.tif"] = Whole(saved(GREY, "TIFF", compression="jpeg"), GREY, 16)
    clockwise = ImageFileDirectory_v2()
    clockwise[0x0112] = 6
    files["turned.tif"] = Whole(saved(NOISE, "TIFF", tiffinfo=clockwise), np.rot90(NOISE, -1))
    files |= _tiffs_of_tifffile()
    for shape in ((1, 1), (1, 30_000), (30_000, 1)):
        line = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
        for kind in ("PNG", "TIFF"):
            files[f"{shape[0]}x{shape[1]}.{kind.lower()}"] = Whole(saved(line, kind), line)
    return files


def _tiffs_of_tifffile() -> dict[str, Whole]:
    """TIFFs that Pillow does not write."""
    byte = (NOISE.astype(int) - 128).astype(np.int8)
    alpha = np.dstack([NOISE, np.full_like(NOISE, 255)])
    kinds: dict[str, tuple[np.ndarray, np.ndarray, dict[str, object]]] = {
        "planes": (np.stack([DEEP] * 3), windowed(DEEP), {"photometric": "rgb"}),
        "tiles": (DEEP, windowed(DEEP), {"tile": (16, 16), "compression": "lzw"}),
        "signed": (byte, windowed(byte), {"compression": "deflate", "predictor": 2}),
        "alpha": (alpha, NOISE, {"extrasamples": ["assocalpha"], "compression": "packbits"}),
        "zstd": (DEEP, windowed(DEEP), {"compression": "zstd", "rowsperstrip": 7}),
    }
    files = {}
    for (name, (pixels, truth, options)), order in itertools.product(kinds.items(), "<>"):
        stream = io.BytesIO()
        options = {
            "photometric": "minisblack",
            "byteorder": order,
            "bigtiff": order == ">",
        } | options
        tifffile.imwrite(stream, pixels, **options)
        files[f"{name} {'big' if order == '>' else 'small'}.tif"] = Whole(
            stream.getvalue(), truth, 1.0
        )
    return files


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../evil.py", "print(1)")
    return stream.getvalue()


def _jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all blocks."""
    data = saved(np.zeros((8, 8), np.uint8), "JPEG", progressive=True)
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


@cache
def _zeros() -> bytes:
    """128 MB in 128 kB."""
    return zlib.compress(bytes(2**27), 9)


def _late_markers() -> bytes:
    """A JPEG with millions of comments between its frame and its scan."""
    data = saved(GREY, "JPEG")
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\xff\xfe\0\2" * 5_000_000 + data[scan:]


def _unwanted_tiffs() -> dict[str, Callable[[], bytes]]:
    """TIFFs whose strips, tiles and tags are not what the file holds."""
    head = {256: 18, 257: 22, 258: 8, 259: 1, 262: 1, 277: 1, 278: 22}
    thin, pieces = head | {256: 380, 257: 2**17, 278: 1}, 2**17
    jpeg = saved(np.zeros((1, 380), np.uint8), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    claims = jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :]
    talks = jpeg[:2] + b"\xff\xfe\0\2" * 400 + jpeg[2:]
    scans = _jpeg_of_scans(3_000, 64)
    return {
        "next is itself.tif": lambda: tiff(head, NOISE.tobytes(), following=8),
        "below is itself.tif": lambda: tiff(head | {330: [8] * 9}, NOISE.tobytes()),
        "tile.tif": lambda: tiff(head | {322: 2**31, 323: 2**31}, bytes(99)),
        "thin tiles.tif": lambda: tiff(head | {322: 1, 323: 2**26}, *[b"x"] * 18),
        "no rows.tif": lambda: tiff(head | {278: 0}, bytes(99)),
        "outside.tif": lambda: tiff(head | {259: 5, 273: 2**31}, counts=[99]),
        "long strip.tif": lambda: tiff(head | {259: 8}, _zeros(), counts=[2**32 - 1]),
        "too many strips.tif": lambda: tiff(thin | {257: 2**20}, *[b"x"] * 2**20),
        "many strips.tif": lambda: tiff(thin, *[bytes(380)] * pieces),
        "many deflated.tif": lambda: tiff(thin | {259: 8}, *[zlib.compress(bytes(380))] * pieces),
        "many jpegs.tif": lambda: tiff(thin | {259: 7}, *[jpeg] * pieces),
        "many comments.tif": lambda: tiff(thin | {259: 7}, *[talks] * pieces),
        "jpeg claims.tif": lambda: tiff(thin | {257: 1, 259: 7}, claims),
        "jpeg tables.tif": lambda: tiff(thin | {257: 1, 259: 7, 347: claims}, jpeg),
        "jpeg scans.tif": lambda: tiff(
            head | {256: 64, 257: 64 * 9_000, 259: 7, 278: 64}, *[scans] * 9_000
        ),
        "deflated.tif": lambda: tiff(head | {259: 8}, _zeros()),
        "many planes.tif": lambda: tiff(
            head | {256: 1, 257: 1, 277: 65_535, 284: 2, 278: 1}, *[b"x"] * 65_535
        ),
        "packed.tif": lambda: tiff(head | {259: 32773}, b"\x80" * 50_000_000),
        "palette.tif": lambda: tiff(head | {262: 3, 320: [0] * 5}, NOISE.tobytes()),
        "far directory.tif": lambda: b"II+\0" + struct.pack("<HHQ", 8, 0, 2**64 - 1),
        "huge directory.tif": lambda: b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, 2**63) + bytes(99),
    }


def unwanted_images() -> dict[str, Callable[[], bytes]]:
    """What makes each file that must be refused, or read within the bounds, by name."""
    image = Image.fromarray(NOISE)
    return {
        "empty.png": lambda: b"",
        "gif.png": lambda: saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "bmp.png": lambda: saved(image, "BMP"),
        "webp.png": lambda: saved(image, "WEBP"),
        "ppm.png": lambda: saved(image, "PPM"),
        "eps.png": lambda: (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
            b"(/tmp/evil) (w) file closefile\nshowpage\n%%EOF\n"
        ),
        "pdf.png": lambda: b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
        "svg.png": lambda: (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/>'
        ),
        "objects.png": lambda: bytes(ForkingPickler.dumps({"a": 1})),
        "zip.png": _zip,
        "html.png": lambda: b"<html><body>not found</body></html>",
        "gif bomb.gif": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" * 300,
        "bmp bomb.bmp": lambda: (
            b"BM" + struct.pack("<IIIIii", 99, 0, 54, 40, 2**30, 2**30) + bytes(99)
        ),
        "no pixels.png": lambda: png(18, 22, 8, 0, b""),
        "no data.png": lambda: png(18, 22, 8, 0, zlib.compress(b"")),
        "no size.png": lambda: png(0, 0, 8, 0, zlib.compress(bytes(99))),
        "negative.png": lambda: png(2**31, 2**31 + 1, 8, 0, zlib.compress(bytes(99))),
        "wide.png": lambda: png(2**31 - 1, 1, 1, 0, zlib.compress(bytes(9999))),
        "bomb.png": lambda: png(60_000, 60_000, 8, 0, _zeros()),
        "largest.png": lambda: png(
            9_999, 9_999, 16, 6, zlib.compress(bytes(9_999 * (8 * 9_999 + 1)), 1)
        ),
        "profile.png": lambda: png(
            18, 22, 8, 0, zlib.compress(bytes(19 * 22)), chunk(b"iCCP", b"x\0\0" + _zeros())
        ),
        "texts.png": lambda: png(
            18, 22, 8, 0, zlib.compress(bytes(19 * 22)), *[chunk(b"zTXt", b"x\0\0" + _zeros())] * 50
        ),
        "depth.png": lambda: png(18, 22, 255, 9, zlib.compress(bytes(999))),
        "more pixels.png": lambda: png(18, 22, 8, 0, _zeros()),
        "much more pixels.png": lambda: png(18, 22, 8, 0, zlib.compress(bytes(2**31), 1)),
        "far more pixels.png": lambda: png(
            18, 22, 8, 0, zlib.compress(bytes(19 * 22)), *[chunk(b"IDAT", _zeros())] * 200
        ),
        "chunks.png": lambda: png(18, 22, 8, 0, b"", chunk(b"tEXt", b"") * 2_000_000),
        "markers.jpg": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000_000,
        "filled.jpg": lambda: b"\xff\xd8" + b"\xff" * 80_000_000,
        "late markers.jpg": _late_markers,
        "scans.tif": lambda: saved(NOISE, "TIFF") + b"\xff\xda" * 100_000_000,
        "scans.jpg": lambda: _jpeg_of_scans(2_000, 9_999),
        "few scans.jpg": lambda: _jpeg_of_scans(3, 9_999),
        "strips.tif": lambda: tiff({256: 18, 257: 22, 258: 8, 259: 1, 262: 1, 277: 1}, bytes(20)),
        "bits.tif": lambda: tiff(
            {256: 9_999, 257: 9_999, 258: 64, 259: 8, 262: 1, 277: 1, 339: 3}, _zeros()
        ),
        "samples.tif": lambda: tiff(
            {256: 9_999, 257: 9_999, 258: 8, 259: 8, 262: 2, 277: 65_535}, _zeros()
        ),
        "samples16.tif": lambda: tiff(
            {256: 9_999, 257: 9_999, 258: 16, 259: 8, 262: 2, 277: 65_535}, _zeros()
        ),
        "largest float.tif": lambda: cv2.imencode(
            ".tiff", np.zeros((9_999, 9_999), np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        )[1].tobytes(),
        "bilevel.tif": lambda: tiff(
            {256: 9_999, 257: 9_999, 258: 1, 259: 4, 262: 0, 277: 1}, b"\0" * 99
        ),
        **_unwanted_tiffs(),
        "circle.tif": lambda: b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "large.png": lambda: png(
            9_999, 9_999, 16, 4, zlib.compress(bytes(9_999 * (4 * 9_999 + 1)), 1)
        ),
        "long directory.tif": lambda: b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535),
    }
