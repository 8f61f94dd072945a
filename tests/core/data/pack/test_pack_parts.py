"""Parts of a pack read as one, and damaged packs."""

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
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.data.packs import (
    SIZE,
    check_pixels,
    images,
    pack_names,
    packing,
    refusal,
    write_image,
)

__all__ = ["images"]
Spoil = Callable[[Path], object]


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
        assert left is None or f"not packed yet: {left}\n" in out
    assert is_pack(pack)
    assert [part.plan.count for part in open_packs(pack)] == [3, 3, 4]
    assert pack_names(pack)[6:] == ["6.png", "sub/7.png", "sub/8.png", "sub/9.png"]
    check_pixels(pack, images)
    assert match_images(["8", "sub/9.png"], pack).paths == [
        f"{pack}/sub/8.png",
        f"{pack}/sub/9.png",
    ]


def test_parts_that_do_not_belong_together_are_reported(images: Path, call: Call) -> None:
    pack = images.parent / "pack"
    call(*packing(images, "--part", "1/2"))
    other_size = refusal(call, images, "--part", "2/2", "--size", 16)
    assert "was begun with 2 parts, not 3" in refusal(call, images, "--part", "1/3")
    assert "was begun with --size 8, not 16" in other_size
    assert "holds a pack in parts" in refusal(call, images)
    write_image(images / "new.png", 50)
    message = refusal(call, images, "--part", "2/2")
    assert "was begun with other images (10, not 11)" in message
    other = images.parent / "other"
    assert call(*packing(images, "--part", "2/2", "--out", other))[0] == 0
    shutil.copytree(other / "part_2_of_2", pack / "part_2_of_2")
    with pytest.raises(UserError, match=r"part_2_of_2 is not a part of the pack .*of 11 images"):
        open_packs(pack)
    shutil.rmtree(pack / "part_2_of_2")
    shutil.copytree(pack / "part_1_of_2", pack / "part_2_of_2")
    with pytest.raises(UserError, match=r"part_2_of_2 is not a part of the pack .* but part 1 of"):
        open_packs(pack)
    (pack / "part_2_of_2" / "pack.json").rename(pack / "part_2_of_2" / "pack.begun.json")
    with pytest.raises(UserError, match=r"part_2_of_2 is not finished"):
        open_packs(pack)


def array(pixels: np.ndarray) -> Spoil:
    return lambda pack: np.save(pack / "images.npy", pixels)


def facts(**changed: Any) -> Spoil:
    def change(pack: Path) -> None:
        there = json.loads((pack / "pack.json").read_text())
        (pack / "pack.json").write_text(json.dumps(there | changed))

    return change


def index(old: str, new: str) -> Spoil:
    """Change the index and its checksum."""

    def change(pack: Path) -> None:
        text = (pack / "index.csv").read_text().replace(old, new)
        (pack / "index.csv").write_text(text)
        facts(index_sha256=hashlib.sha256(text.encode()).hexdigest())(pack)

    return change


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (array(np.zeros((9, SIZE, SIZE), np.uint8)), "does not hold 10 grey images of 8 px"),
        (
            lambda pack: (pack / "images.npy").write_text("x"),
            r"\(it is not an array .*\): pack the",
        ),
        (array(np.zeros((10, SIZE, SIZE), np.uint8, "F")), "size does not match its images"),
        (lambda pack: os.truncate(pack / "images.npy", 50), "is truncated"),
        (lambda pack: os.truncate(pack / "images.npy", 10**4), "size does not match its images"),
        (lambda pack: (pack / "images.npy").unlink(), r"No such file.* again with --overwrite"),
        (lambda pack: (pack / "index.csv").write_text("name\n"), "checksum is wrong"),
        (index("1.png", "../1.png"), "outside the folder"),
        (index("2.png", "1.png"), "repeated"),
        (index('"name"', '"names"'), "does not hold 10 images"),
        (index('"1.png",', '"1.png",x'), "is not a table"),
        (lambda pack: (pack / "pack.json").write_text("{"), "is not valid JSON"),
        (facts(version=2), "version is not 1"),
        (facts(size=-8), r"Expected `int` >= 1 - at `\$\.size`"),
        (facts(names_sha256="x\n"), r"at `\$\.names_sha256`"),
        (facts(count=11), "do not add up"),
        (facts(block_rows=1), "numbers of checksums and blocks differ"),
        (facts(blocks=["x"] * 3), r"at `\$\.blocks"),
    ],
)
def test_a_spoiled_pack_is_refused_in_one_sentence(
    images: Path, call: Call, spoil: Spoil, expected: str
) -> None:
    call(*packing(images))
    spoil(images.parent / "pack")
    with pytest.raises(UserError, match=expected) as refused:
        open_packs(images.parent / "pack")
    assert "\n" not in str(refused.value)
    assert "pickle" not in str(refused.value)
