"""JPEG header parser, against Pillow, with any content between segments."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from core.data.images.decode import decode_image
from core.data.images.jpeg_header import check_scans, frame_size
from core.errors import UserError
from tests.helpers.fuzz.image_files import saved

GREY = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8), (0, 0), 2
)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "grey": ("L", {"restart_marker_blocks": 2}),
    "colour": ("RGB", {"progressive": True}),
    "inks": ("CMYK", {}),
}
JUNK = [
    b"not a segment",
    bytes(60_000),
    b"\xff" * 60_000,
    b"\xff\0\xff\0abc\xff\xff\0",
    # a restart; no length; a length of one; markers in a segment
    b"\xff\xd3",
    b"\xff\xfe\0\0",
    b"\xff\xfe\0\1",
    b"\xff\xe5\0\x0c\xff\xda\xff\xd9\xff\xc0\0\0\0\0",
]


def encoded(kind: str) -> bytes:
    mode, options = KINDS[kind]
    return saved(Image.fromarray(GREY).convert(mode), "JPEG", quality=90, **options)


def parts(data: bytes) -> list[bytes]:
    """SOI and each segment up to the first scan, and the rest (ITU-T T.81 B.1.1.4)."""
    cut = [0, 2]
    while data[cut[-1] + 1] != 0xDA:
        cut.append(cut[-1] + 2 + struct.unpack_from(">H", data, cut[-1] + 2)[0])
    return [data[start:end] for start, end in zip(cut, [*cut[1:], len(data)], strict=True)]


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB").convert("L"))


@pytest.mark.parametrize("kind", KINDS)
def test_junk_between_segments_is_skipped(kind: str) -> None:
    whole = parts(encoded(kind))
    for junk in JUNK:
        # behind SOI, Pillow too wants a marker
        for place in range(1 if junk.startswith(b"\xff") else 2, len(whole)):
            data = b"".join([*whole[:place], junk, *whole[place:]])
            assert np.array_equal(by_pillow(data), by_pillow(encoded(kind))), junk
            assert np.array_equal(decode_image(data, "a.jpg"), by_pillow(data)), junk


def test_junk_behind_the_image_is_not_scans_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_MAX_PIXELS", "1920")
    for kind in KINDS:
        data = encoded(kind) + b"\xff\xda" * 10_000
        assert np.array_equal(decode_image(data, "a.jpg"), by_pillow(data))
    with pytest.raises(ValueError, match="31 scans of 1,920 pixels"):
        check_scans(parts(encoded("grey"))[0] + b"\xff\xda\0\2" * 31 + b"\xff\xd9", 1920)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_start_or_end_is_refused(kind: str) -> None:
    data = encoded(kind)
    for spoiled in (
        data[:-2],
        data[:-2] + bytes(99),
        data[: len(data) // 2],
        # as an interrupted transfer leaves it
        data[: -len(data) // 3] + bytes(len(data)),
        b"\0" + data,
        data[:2] + b"\xff\xd9" + data[2:],
    ):
        with pytest.raises(UserError, match=r"^Image a\.jpg cannot be read: "):
            decode_image(spoiled, "a.jpg")


@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (bytes(2**20 + 1), "over 1,048,576 bytes of its header belong to no segment"),
        (b"\xff\xfe\0\2" * 10_001, "more than 10,000 segments"),
    ],
)
def test_a_header_without_end_is_refused(junk: bytes, reason: str) -> None:
    whole = parts(encoded("grey"))
    with pytest.raises(UserError, match=reason):
        decode_image(b"".join([*whole[:2], junk, *whole[2:]]), "a.jpg")
    assert frame_size(encoded("colour")) == (40, 48, 8, 3)
