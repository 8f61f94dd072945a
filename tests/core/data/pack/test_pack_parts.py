"""Parts of a pack read as one; --verify finds what is wrong; a spoiled pack is never read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.images.find_files import match_images
from core.data.images.pack_format import is_pack, open_packs
from core.data.pack.__main__ import main
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.data.packs import SIZE, check_pixels, images, pack_names, packing, write_image

__all__ = ["images"]


def test_parts_read_as_one_pack(images: Path, call: Call) -> None:
    pack = images.parent / "pack"
    for part in ("2/3", "1/3", "3/3"):
        if part == "3/3":
            with pytest.raises(UserError, match=r"part 3 is missing: pack it with --part 3/3"):
                open_packs(pack)
        code, out, err = call(*packing(images, "--part", part))
        assert (code, err) == (0, "")
        assert (f"--train_dir {pack}" in out) == (part == "3/3")
        left = {"2/3": "parts 1, 3 of 3", "1/3": "part 3 of 3"}.get(part)
        assert left is None or f"still to be packed: {left}\n" in out
    assert is_pack(pack)
    assert [part.plan.count for part in open_packs(pack)] == [3, 3, 4]
    assert pack_names(pack)[6:] == ["6.png", "sub/7.png", "sub/8.png", "sub/9.png"]
    check_pixels(pack, images)
    assert match_images(["8", "sub/9.png"], pack).paths == [
        f"{pack}/sub/8.png",
        f"{pack}/sub/9.png",
    ]
    code, out, _ = call(main, "--verify", "--out", pack, "--train_dir", images)
    assert code == 0
    told = f"(10 images in 3 blocks: the checksums are right, the images those of {images})"
    assert told in out


def test_parts_that_do_not_belong_together_are_told(images: Path, call: Call) -> None:
    pack = images.parent / "pack"
    call(*packing(images, "--part", "1/2"))

    def refused(*more: object) -> str:
        code, _, err = call(*packing(images, *more))
        assert code == 2
        return err

    assert "was begun with 2 parts, not 3" in refused("--part", "1/3")
    assert "was begun with --size 8, not 16" in refused("--part", "2/2", "--size", 16)
    assert "holds a pack in parts" in refused()
    write_image(images / "new.png", 50)
    assert "was begun with 10 images, not 11" in refused("--part", "2/2")
    other = images.parent / "other"
    assert call(*packing(images, "--part", "2/2", "--out", other))[0] == 0
    shutil.copytree(other / "part_2_of_2", pack / "part_2_of_2")
    with pytest.raises(UserError, match=r"part_2_of_2 is no part of the pack .*of 11 images"):
        open_packs(pack)
    shutil.rmtree(pack / "part_2_of_2")
    shutil.copytree(pack / "part_1_of_2", pack / "part_2_of_2")
    with pytest.raises(UserError, match=r"part_2_of_2 is no part of the pack .* it is part 1 of 2"):
        open_packs(pack)
    (pack / "part_2_of_2" / "pack.json").rename(pack / "part_2_of_2" / "pack.begun.json")
    with pytest.raises(UserError, match=r"part_2_of_2 is not finished"):
        open_packs(pack)


def test_a_whole_pack_is_not_divided_afterwards(images: Path, call: Call) -> None:
    call(*packing(images))
    code, _, err = call(*packing(images, "--part", "1/2"))
    assert code == 2
    assert "holds a pack that is not in parts" in err


def test_verify_compares_with_the_files(images: Path, call: Call) -> None:
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
    told = ["0.png can be read now", "2.png has other pixels", "sub/9.png is no longer there"]
    assert [line.removeprefix("differs      ") for line in out.splitlines()] == told
    assert "3 of 10 images" in err


def test_a_block_with_a_wrong_checksum_is_told_with_its_images(images: Path, call: Call) -> None:
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


def test_verify_of_no_pack(images: Path, call: Call) -> None:
    for folder in (images, images / "nowhere"):
        code, _, err = call(main, "--verify", "--out", folder)
        assert code == 2
        assert "is no pack" in err


def save_array(**how: Any) -> Callable[[Path], object]:
    def save(pack: Path) -> None:
        array = np.zeros(how.get("shape", (10, SIZE, SIZE)), how.get("dtype", np.uint8))
        if how.get("turned"):
            array = np.asfortranarray(array)
        with (pack / "images.npy").open("wb") as file:
            # an array of objects too has but a header that says so, and never what it would load
            np.lib.format.write_array_header_1_0(
                file, np.lib.format.header_data_from_array_1_0(array)
            )
            file.write(b"objects" if array.dtype.hasobject else array.tobytes(order="A"))

    return save


def facts(**changed: Any) -> Callable[[Path], object]:
    def change(pack: Path) -> None:
        there = json.loads((pack / "pack.json").read_text())
        (pack / "pack.json").write_text(json.dumps(there | changed))

    return change


def index(old: str, new: str) -> Callable[[Path], object]:
    """A changed index whose checksum is right."""

    def change(pack: Path) -> None:
        text = (pack / "index.csv").read_text().replace(old, new)
        (pack / "index.csv").write_text(text)
        facts(index_sha256=hashlib.sha256(text.encode()).hexdigest())(pack)

    return change


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (save_array(shape=(9, SIZE, SIZE)), "does not hold 10 grey images of 8 px"),
        (save_array(dtype=np.float32), "does not hold 10 grey images"),
        (save_array(dtype=object), r"\(it is no array of images, or was cut short\): pack the"),
        (save_array(turned=True), "size is not that of its images"),
        (lambda pack: os.truncate(pack / "images.npy", 700), "was cut short"),
        (lambda pack: os.truncate(pack / "images.npy", 0), "was cut short"),
        (lambda pack: os.truncate(pack / "images.npy", 50), "was cut short"),
        (lambda pack: (pack / "images.npy").write_bytes(b"x" * 999), "was cut short"),
        (lambda pack: os.truncate(pack / "images.npy", 10**4), "size is not that of its images"),
        (lambda pack: (pack / "images.npy").unlink(), r"No such file.* anew with --overwrite"),
        (lambda pack: (pack / "index.csv").unlink(), r"No such file.* anew with --overwrite"),
        (lambda pack: (pack / "index.csv").write_text("name\n"), "does not have its checksum"),
        (index("1.png", "../1.png"), "leaves the folder"),
        (index("sub/9.png", "/etc/passwd"), "leaves the folder"),
        (index("2.png", "1.png"), "there twice"),
        (index('"name"', '"names"'), "index.csv is no valid file"),
        (index('"1.png",', '"1.png",x'), "is no table"),
        (index('"1.png"', '"1.png","'), "index.csv is no valid file"),
        (lambda pack: (pack / "pack.json").write_text("{"), "is no JSON"),
        (lambda pack: (pack / "pack.json").write_text("[" * 10**5), "nested too deeply"),
        (lambda pack: (pack / "pack.json").write_text("[]"), "holds no JSON object"),
        (facts(format="other"), "does not say that it is one"),
        (facts(version=2), "is of a pack of version 2"),
        (facts(size=-8), "its size is -8"),
        (facts(size=True), "its size is True"),
        (facts(count=2**70), "its count is"),
        (facts(count=11), "do not add up"),
        (facts(part=2), "do not add up"),
        (facts(block_rows=0), "its block_rows is 0"),
        (facts(block_rows=1), "checksums are not as many"),
        (facts(blocks=["x"] * 3), "checksums are not as many"),
        (facts(blocks=7), "checksums are not as many"),
    ],
)
def test_a_spoiled_pack_is_refused_in_one_sentence(
    images: Path, call: Call, spoil: Callable[[Path], object], told: str
) -> None:
    call(*packing(images))
    spoil(images.parent / "pack")
    with pytest.raises(UserError, match=told) as refused:
        open_packs(images.parent / "pack")
    assert "\n" not in str(refused.value)
    assert "pickle" not in str(refused.value)
