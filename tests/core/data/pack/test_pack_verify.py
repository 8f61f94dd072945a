"""--verify never advises to delete a pack because of what it was wrongly compared with."""

import shutil
from pathlib import Path

import pytest

from core.data.pack.__main__ import main
from tests.conftest import Call
from tests.helpers.data.packs import SIZE, images, packing, write_csv, write_image

__all__ = ["images"]


def test_what_is_no_folder_of_images_is_not_compared(images: Path, call: Call) -> None:
    call(*packing(images))
    pack = images.parent / "pack"
    for folder, told in [
        (images / "nowhere", "does not exist"),
        (images / "0.png", "is not a folder"),
        (pack, "is a pack"),
    ]:
        code, out, err = call(main, "--verify", "--out", pack, "--train_dir", folder)
        assert code == 2
        assert err == f"error: --train_dir {folder} {told}: name the folder of the images\n"
        assert out == ""


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--overwrite",), "--verify only looks at a pack: leave out --overwrite"),
        (("--size", SIZE + 1), "is of --size 8, not 9"),
        (("--train_csv", "a.csv"), "images of --train_csv in --train_dir: give that"),
        (("--part", "2/3"), "part_2_of_3 is no pack"),
    ],
)
def test_flags_that_verify_cannot_follow(images: Path, call: Call, flags: tuple, told: str) -> None:
    call(*packing(images))
    code, _, err = call(main, "--verify", "--out", images.parent / "pack", *flags)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_part_is_verified_alone(images: Path, call: Call) -> None:
    pack, csv = images.parent / "pack", images.parent / "a.csv"
    write_csv(csv, [*map(str, range(6)), "sub/9.png"])
    for part in ("1/2", "2/2"):
        assert call(*packing(images, "--train_csv", csv, "--part", part))[0] == 0
    (pack / "part_1_of_2" / "images.npy").unlink()
    verify = (main, "--verify", "--out", pack, "--train_dir", images, "--train_csv", csv)
    assert call(*verify)[0] == 2
    code, out, _ = call(*verify, "--part", "2/2", "--size", SIZE)
    assert code == 0
    assert f"{pack}/part_2_of_2 (4 images in 1 block: the checksums are right" in out


def test_the_names_are_compared_with_those_of_the_csv(images: Path, call: Call) -> None:
    csv, folder = write_csv(images.parent / "a.csv", ["1", "2"]), images.parent / "pack"
    call(*packing(images, "--train_csv", csv))
    verify = (main, "--verify", "--out", folder, "--train_dir", images, "--train_csv", csv)
    assert call(*verify)[0] == 0
    write_csv(csv, ["1", "3"])
    code, _, err = call(*verify)
    assert code == 2
    assert "1 is new (3.png) and 1 is gone (2.png)" in err


def test_twenty_of_many_differing_images_are_printed(images: Path, call: Call) -> None:
    for number in range(10, 25):
        write_image(images / f"{number}.png", number)
    call(*packing(images))
    other = images.parent / "other"
    shutil.copytree(images, other)
    for path in other.rglob("*.png"):
        path.unlink()
    code, out, err = call(main, "--verify", "--out", images.parent / "pack", "--train_dir", other)
    assert code == 2
    assert [line[:7] for line in out.splitlines()] == ["differs"] * 20 + [" " * 7]
    assert out.endswith(" and 5 more\n")
    assert "has 25 of 25 images not as in" in err
    assert "if that is the folder that was packed" in err
