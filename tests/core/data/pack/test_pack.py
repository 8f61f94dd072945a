"""A pack holds what training reads from the files; it is made by one command, or refused."""

import os
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from core.data.images.pack_format import open_packs
from core.data.pack.__main__ import main
from tests.conftest import Call
from tests.helpers.data.packs import (
    SIZE,
    check_pixels,
    images,
    pack_names,
    packing,
    write_csv,
    write_image,
)

__all__ = ["images"]


def test_a_folder_is_packed_whole(images: Path, call: Call) -> None:
    (images / "notes.txt").write_text("no image")
    code, out, err = call(*packing(images))
    pack = images.parent / "pack"
    assert (code, err) == (0, "")
    assert pack_names(pack) == [
        *(f"{n}.png" for n in range(7)),
        "sub/7.png",
        "sub/8.png",
        "sub/9.png",
    ]
    check_pixels(pack, images)
    # NumPy's own format, for any other program
    array = np.load(pack / "images.npy", mmap_mode="r", allow_pickle=False)
    assert array.shape == (10, SIZE, SIZE)
    assert array.dtype == np.uint8
    # which labels it will be trained on is not known
    command = f"--train_csv YOUR_LABELS.csv --train_dir {pack} --img_size {SIZE}"
    assert f"train        python methods/standard_head/train.py {command}\n" in out
    assert sorted(os.listdir(pack)) == [".lock", "images.npy", "index.csv", "pack.json"]


def test_only_the_images_of_the_csvs_are_packed(images: Path, call: Call) -> None:
    # names without ending and folder, one table without labels
    first = write_csv(images.parent / "a.csv", ["3", "sub/9.png"])
    second = images.parent / "b.csv"
    second.write_text("Image Index\n8.png\n3.png\n")
    code, out, err = call(*packing(images, "--train_csv", first, second))
    assert (code, err) == (0, "")
    assert f"--train_csv {first} {second} --train_dir" in out
    assert pack_names(images.parent / "pack") == ["3.png", "sub/8.png", "sub/9.png"]


def test_names_of_any_bytes(images: Path, call: Call) -> None:
    names = [
        'a"b,c.png',
        "line\nbreak\r.png",
        "Röntgen 胸.png",
        os.fsdecode(b"latin \xe4.png"),
        "NA.png",
    ]
    for number, name in enumerate(names):
        write_image(images / name, 100 + number)
    assert call(*packing(images))[0] == 0
    assert set(names) < set(pack_names(images.parent / "pack"))
    check_pixels(images.parent / "pack", images)


def test_an_unreadable_file_of_any_bytes_is_named(images: Path, call: Call) -> None:
    (images / os.fsdecode(b"bad \xff.png")).write_bytes(b"no image")
    code, out, err = call(*packing(images))
    assert code == 2
    assert err.count("\n") == 1
    assert r"unreadable   bad \udcff.png: Image " in out


def test_the_same_command_again_leaves_a_whole_pack_alone(images: Path, call: Call) -> None:
    call(*packing(images))
    files = sorted((images.parent / "pack").iterdir())
    before = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files[1:]]
    code, out, _ = call(*packing(images))
    assert code == 0
    assert "10 images" in out
    assert [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files[1:]] == before


def test_other_settings_images_or_files_are_refused(images: Path, call: Call) -> None:
    call(*packing(images))
    kept = (images.parent / "pack" / "images.npy").read_bytes()

    def refusal(*more: object) -> str:
        code, _, err = call(*packing(images, *more))
        assert code == 2
        assert err.count("\n") == 1
        return err

    assert f"begun with --size {SIZE}, not 16" in refusal("--size", 16)
    write_image(images / "new.png", 99)
    (images / "4.png").rename(images.parent / "4.png")
    assert "1 is new (new.png) and 1 is gone (4.png)" in refusal()
    (images / "new.png").unlink()
    (images.parent / "4.png").rename(images / "4.png")
    write_image(images / "5.png", 55)
    assert "1 file has other bytes or another time of change" in refusal()
    assert "5.png" in refusal()
    assert (images.parent / "pack" / "images.npy").read_bytes() == kept
    (images.parent / "pack" / "mine.txt").write_text("kept")
    assert call(*packing(images, "--overwrite"))[0] == 0
    check_pixels(images.parent / "pack", images)
    assert (images.parent / "pack" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("bad", ["cut short", "no image"])
def test_unreadable_images_are_all_named_and_taken_up_when_mended(
    images: Path, call: Call, bad: str
) -> None:
    good = {name: (images / name).read_bytes() for name in ("2.png", "sub/8.png")}
    for name in good:
        (images / name).write_bytes(b"<html>" if bad == "no image" else good[name][:60])
    code, out, err = call(*packing(images))
    assert code == 2
    assert "2 of 10 images cannot be read (2.png, sub/8.png)" in err
    assert err.count("\n") == 1
    assert "unreadable   2.png: Image " in out
    assert "unreadable   sub/8.png: Image " in out
    for name, data in good.items():
        (images / name).write_bytes(data)
    code, _, err = call(*packing(images))
    assert (code, err) == (0, "")
    check_pixels(images.parent / "pack", images)


def test_marked_images_can_be_mended_later(images: Path, call: Call) -> None:
    good = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(good[:60])
    code, out, _ = call(*packing(images, "--on_bad_image", "skip"))
    assert code == 0
    assert "1 of them marked as unreadable" in out
    (pack,) = open_packs(images.parent / "pack")
    ((row, reason),) = pack.unreadable.items()
    assert row == 2
    assert "cut short" in reason
    assert not pack.images[2].any()
    (images / "2.png").write_bytes(good)
    code, out, _ = call(*packing(images))
    assert code == 0
    assert "unreadable" not in out
    check_pixels(images.parent / "pack", images)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 300_000_000))
    code, _, err = call(*packing(images, "--size", 60_000))
    assert code == 2
    assert "needs 36.0 GB and 300.0 MB are free" in err
    assert not (images.parent / "pack").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--out", "taken"), "--out taken cannot be made, as taken is a file: give a folder"),
        (("--out", "taken/below"), "below cannot be made, as taken is a file: give a folder"),
        (("--out", "images"), "holds files that are no pack's"),
        (("--train_dir", "empty"), "holds no image"),
        (("--part", "9/8"), "--part 9/8 is no part"),
        (("--part", "٢/٨"), "is no part: give it as 2/8"),
        (("--part", "1/20"), "10 images cannot be divided into 20 parts"),
        (("--num_workers", 0), "--num_workers must be at least 1"),
        (("--size", 0), "--size must be at least 1, not 0"),
        (("--source", "nih"), "--source is given once for each --train_csv"),
    ],
)
def test_flags_that_mean_nothing_are_refused(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple, told: str
) -> None:
    monkeypatch.chdir(images.parent)
    Path("taken").write_text("mine")
    Path("empty").mkdir()
    code, _, err = call(*packing(images, *flags))
    assert code == 2
    assert told in err
    assert not (images.parent / "pack").exists()
    assert Path("taken").read_text() == "mine"


def test_a_pack_is_not_packed_again(images: Path, call: Call) -> None:
    call(*packing(images))
    pack = images.parent / "pack"
    code, _, err = call(main, "--train_dir", pack, "--out", images.parent / "other")
    assert code == 2
    assert "is a pack already" in err


def test_help_needs_no_decoder() -> None:
    code = f"import sys; sys.argv = ['pack', '--help']; sys.path.insert(0, {os.getcwd()!r})\n"
    code += "from core.data.pack.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert not {'cv2', 'torch', 'pandas', 'numpy'} & set(sys.modules)"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def test_a_file_that_changes_while_it_is_packed_is_told(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.data.pack import writer as pack_writing

    decode = pack_writing.decode_blocks

    def change_first(*arguments: object) -> None:
        write_image(images / "3.png", 33)
        os.utime(images / "3.png", ns=(0, time.time_ns() + 10**9))
        decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pack_writing, "decode_blocks", change_first)
    code, out, _ = call(*packing(images))
    assert code == 2
    assert "3.png was changed while it was packed" in out
    monkeypatch.undo()
    assert call(*packing(images))[0] == 0
    check_pixels(images.parent / "pack", images)
