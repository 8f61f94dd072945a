"""`--verify`: damaged packs, and comparison with the image files."""

import os
from pathlib import Path

import pytest

from core.data.pack.__main__ import main
from tests.conftest import Call
from tests.helpers.data.packs import images, packing, write_image

__all__ = ["images"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--train_dir", "nowhere"), "--train_dir nowhere is not an image folder: give the"),
        (("--train_dir", "pack"), "--train_dir pack is not an image folder"),
        (("--overwrite",), "--verify only reads a pack: leave out --overwrite"),
        (("--part", "2/3"), "part_2_of_3 is not a pack"),
        (("--out", "images"), "is not a pack"),
    ],
)
def test_flags_that_verify_cannot_follow(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple, expected: str
) -> None:
    call(*packing(images))
    monkeypatch.chdir(images.parent)
    code, out, err = call(main, "--verify", "--out", "pack", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_a_part_is_verified_alone(images: Path, call: Call) -> None:
    pack = images.parent / "pack"
    for part in ("1/2", "2/2"):
        assert call(*packing(images, "--part", part))[0] == 0
    verify = (main, "--verify", "--out", pack, "--train_dir", images)
    _, out, _ = call(*verify)
    assert (
        f"(10 images in 4 blocks: the checksums are right, the images equal those of {images})"
        in out
    )
    (pack / "part_1_of_2" / "images.npy").unlink()
    assert call(*verify)[0] == 2
    code, out, _ = call(*verify, "--part", "2/2")
    assert code == 0
    assert f"{pack}/part_2_of_2 (5 images in 2 blocks: the checksums are right" in out


def test_images_are_compared_with_the_files(images: Path, call: Call) -> None:
    (images / "0.png").write_bytes(b"damaged")
    call(*packing(images, "--on_bad_image", "skip"))
    verify = (main, "--verify", "--out", images.parent / "pack", "--train_dir", images)
    # the same pixels at another time are the same image
    os.utime(images / "1.png", (0, 0))
    assert call(*verify)[0] == 0
    write_image(images / "2.png", 77)
    (images / "sub" / "9.png").unlink()
    write_image(images / "0.png", 78)
    code, out, err = call(*verify)
    assert code == 2
    expected = ["0.png can be read now", "2.png has other pixels", "sub/9.png is no longer there"]
    assert [line.removeprefix("differs      ") for line in out.splitlines()] == expected
    assert "has 3 of 10 images not as in" in err
    assert "if that is the folder that was packed" in err


def test_a_block_with_a_wrong_checksum_is_reported_with_its_images(
    images: Path, call: Call
) -> None:
    call(*packing(images))
    with (images.parent / "pack" / "images.npy").open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        level = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([(level + 1) % 256]))
    code, out, err = call(main, "--verify", "--out", images.parent / "pack")
    assert code == 2
    assert "block 2 of" in out
    assert "(rows 8 to 9: sub/8.png, sub/9.png)" in out
    assert "1 of 3 blocks" in err
    assert err.count("\n") == 1
