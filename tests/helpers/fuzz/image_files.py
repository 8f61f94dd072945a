"""Small valid images of every kind, and hostile ones."""

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from tests.helpers.data.tiff_files import tiff
from tests.helpers.fuzz.mutations import chunk, png

SHAPE = (22, 18)
RANDOM = np.random.default_rng(1)
NOISE = RANDOM.integers(0, 256, SHAPE, dtype=np.uint8)
DEEP = RANDOM.integers(100, 60000, SHAPE, dtype=np.uint16)


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
def sound_images() -> dict[str, bytes]:
    """Sound files by name."""
    image, quarter = Image.fromarray(NOISE), Image.Exif()
    quarter[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "A word. " * 9, zip=True)
    floats = (DEEP.astype(np.float32) - 30000) / 7
    floats[0, :3] = np.nan, np.inf, -np.inf
    several = {"save_all": True, "append_images": [image.rotate(90)]}
    files = {
        "l.png": saved(NOISE, "PNG"),
        "rgba.png": saved(image.convert("RGBA"), "PNG"),
        "p.png": saved(image.convert("P"), "PNG", transparency=3),
        "1.png": saved(NOISE > 127, "PNG"),
        "16.png": saved(DEEP, "PNG"),
        "rgb16.png": cv2.imencode(".png", np.dstack([DEEP] * 3))[1].tobytes(),
        "text.png": saved(image.convert("RGB"), "PNG", pnginfo=text, icc_profile=b"x" * 99),
        "animated.png": saved(image, "PNG", **several),
        "progressive.jpg": saved(NOISE, "JPEG", quality=95, progressive=True),
        "exif.jpg": saved(NOISE, "JPEG", quality=95, exif=quarter),
        "ccitt.tif": saved(NOISE > 127, "TIFF", compression="tiff_ccitt"),
        "float.tif": saved(floats, "TIFF"),
        "double.tif": cv2.imencode(".tiff", floats.astype(np.float64))[1].tobytes(),
        "pages.tif": saved(image, "TIFF", **several),
        "jpeg.tif": saved(NOISE, "TIFF", compression="jpeg"),
        "one.png": saved(NOISE[:1, :1], "PNG"),
        "long.png": saved(NOISE.repeat(99, axis=1)[:1], "PNG"),
    }
    for mode in ("L", "RGB", "CMYK"):
        files[f"{mode.lower()}.jpg"] = saved(image.convert(mode), "JPEG", quality=95)
    for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        files[f"{way}.tif"] = saved(NOISE, "TIFF", compression=way)
    # TIFFs that Pillow does not write
    kinds: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "planes": (np.stack([DEEP] * 3), {"photometric": "rgb"}),
        "tiles": (DEEP, {"tile": (16, 16), "compression": "lzw"}),
        "signed": (NOISE.view(np.int8), {"compression": "deflate", "predictor": 2}),
        "alpha": (np.dstack([NOISE] * 2), {"extrasamples": ["assocalpha"]}),
        "zstd": (DEEP, {"compression": "zstd", "rowsperstrip": 7}),
    }
    for (name, (pixels, options)), order in itertools.product(kinds.items(), "<>"):
        stream, big = io.BytesIO(), order == ">"
        plain = {"photometric": "minisblack", "byteorder": order, "bigtiff": big}
        tifffile.imwrite(stream, pixels, **plain | options)
        files[f"{name} {'big' if big else 'small'}.tif"] = stream.getvalue()
    return files


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../evil.py", "print(1)")
    return stream.getvalue()


def _jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG with a repeated last scan: each costs a pass over all blocks."""
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
    data = saved(NOISE, "JPEG")
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\xff\xfe\0\2" * 5_000_000 + data[scan:]


def _unwanted_tiffs() -> dict[str, Callable[[], bytes]]:
    """TIFFs with strips, tiles and tags that do not match the content."""
    head = {256: 18, 257: 22, 258: 8, 259: 1, 262: 1, 277: 1, 278: 22}
    thin, pieces = head | {256: 380, 257: 2**17, 278: 1}, 2**17
    huge = head | {256: 9_999, 257: 9_999, 278: 9_999}
    jpeg = saved(np.zeros((1, 380), np.uint8), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    claims = jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :]
    comments = jpeg[:2] + b"\xff\xfe\0\2" * 400 + jpeg[2:]
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
        "many comments.tif": lambda: tiff(thin | {259: 7}, *[comments] * pieces),
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
        "circle.tif": lambda: b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "long directory.tif": lambda: b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535),
        "scans.tif": lambda: saved(NOISE, "TIFF") + b"\xff\xda" * 100_000_000,
        "bits.tif": lambda: tiff(huge | {258: 64, 259: 8, 339: 3}, _zeros()),
        "samples.tif": lambda: tiff(huge | {258: 16, 259: 8, 262: 2, 277: 65_535}, _zeros()),
        "bilevel.tif": lambda: tiff(huge | {258: 1, 259: 4, 262: 0}, bytes(99)),
        "largest float.tif": lambda: cv2.imencode(
            ".tiff", np.zeros((9_999, 9_999), np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        )[1].tobytes(),
    }


def _unwanted_pngs() -> dict[str, Callable[[], bytes]]:
    """PNGs with headers, pixels and texts that do not match the content."""
    few, small = zlib.compress(bytes(19 * 22)), partial(png, 18, 22, 8, 0)

    def largest(colour: int, pixel: int) -> bytes:
        return png(9_999, 9_999, 16, colour, zlib.compress(bytes(9_999 * (pixel * 9_999 + 1)), 1))

    return {
        "no pixels.png": lambda: small(b""),
        "no data.png": lambda: small(zlib.compress(b"")),
        "no size.png": lambda: png(0, 0, 8, 0, few),
        "negative.png": lambda: png(2**31, 2**31 + 1, 8, 0, few),
        "wide.png": lambda: png(2**31 - 1, 1, 1, 0, few),
        "depth.png": lambda: png(18, 22, 255, 9, few),
        "bomb.png": lambda: png(60_000, 60_000, 8, 0, _zeros()),
        "large.png": lambda: largest(4, 4),
        "largest.png": lambda: largest(6, 8),
        "profile.png": lambda: small(few, chunk(b"iCCP", b"x\0\0" + _zeros())),
        "texts.png": lambda: small(few, *[chunk(b"zTXt", b"x\0\0" + _zeros())] * 50),
        "more pixels.png": lambda: small(_zeros()),
        "much more pixels.png": lambda: small(zlib.compress(bytes(2**31), 1)),
        "far more pixels.png": lambda: small(few, *[chunk(b"IDAT", _zeros())] * 200),
        "chunks.png": lambda: small(b"", chunk(b"tEXt", b"") * 2_000_000),
    }


def other_files() -> dict[str, bytes]:
    """Files of other kinds."""
    image = Image.fromarray(NOISE)
    return {
        "gif.png": saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "bmp.png": saved(image, "BMP"),
        "webp.png": saved(image, "WEBP"),
        "ppm.png": saved(image, "PPM"),
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        b"(/tmp/evil) (w) file closefile\nshowpage\n%%EOF\n",
        "pdf.png": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/>',
        "objects.png": bytes(ForkingPickler.dumps({"a": 1})),
        "zip.png": _zip(),
        "html.png": b"<html><body>not found</body></html>",
        "gif bomb.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" * 300,
        "bmp bomb.bmp": b"BM" + struct.pack("<IIIIii", 99, 0, 54, 40, 2**30, 2**30) + bytes(99),
    }


def unwanted_images() -> dict[str, Callable[[], bytes]]:
    """Makers of hostile files by name: each must be refused, or read within the limits."""
    return {
        "empty.png": lambda: b"",
        "markers.jpg": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000_000,
        "filled.jpg": lambda: b"\xff\xd8" + b"\xff" * 80_000_000,
        "late markers.jpg": _late_markers,
        "scans.jpg": lambda: _jpeg_of_scans(2_000, 9_999),
        "few scans.jpg": lambda: _jpeg_of_scans(3, 9_999),
        **_unwanted_pngs(),
        **_unwanted_tiffs(),
    }
