"""Packs: content, command and errors."""

import os
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.images.pack_format import open_packs
from core.data.pack import writer
from core.io.lock import lock_folder
from tests.conftest import Call
from tests.helpers.data.packs import (
    SIZE,
    check_pixels,
    images,
    pack_names,
    packing,
    refusal,
    write_csv,
    write_image,
)

__all__ = ["images"]


def test_a_folder_is_packed_whole(images: Path, call: Call) -> None:
    (images / "notes.txt").write_text("no image")
    code, out, err = call(*packing(images))
    pack = images.parent / "pack"
    assert (code, err) == (0, "")
    assert pack_names(pack) == [*(f"{n}.png" for n in range(7)), *(f"sub/{n}.png" for n in "789")]
    check_pixels(pack, images)
    # NumPy's own format, for any other program
    array = np.load(pack / "images.npy", mmap_mode="r", allow_pickle=False)
    assert (array.shape, array.dtype) == ((10, SIZE, SIZE), np.uint8)
    command = f"--train_csv YOUR_LABELS.csv --train_dir {pack} --img_size {SIZE}"
    assert f"train        python methods/standard_head/train.py {command}\n" in out
    assert sorted(os.listdir(pack)) == [".lock", "images.npy", "index.csv", "pack.json"]
    # the same command again leaves it alone
    files = [path for path in pack.iterdir() if path.name != ".lock"]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    assert call(*packing(images))[0] == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    assert "is a pack already" in refusal(call, images, "--train_dir", pack)


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
    names = ['a"b,c.png', "line\nbreak\r.png", "Röntgen 胸.png", "NA.png"]
    names.append(os.fsdecode(b"latin \xe4.png"))
    for number, name in enumerate(names):
        write_image(images / name, 100 + number)
    assert call(*packing(images))[0] == 0
    assert set(names) < set(pack_names(images.parent / "pack"))
    check_pixels(images.parent / "pack", images)
    (images / os.fsdecode(b"bad \xff.png")).write_bytes(b"no image")
    code, out, err = call(*packing(images, "--overwrite"))
    assert (code, err.count("\n")) == (2, 1)
    assert r"unreadable   bad \udcff.png: Image " in out


def test_other_settings_images_or_files_are_refused(images: Path, call: Call) -> None:
    call(*packing(images))
    kept = (images.parent / "pack" / "images.npy").read_bytes()
    assert f"begun with --size {SIZE}, not 16" in refusal(call, images, "--size", 16)
    assert "holds a pack that is not in parts" in refusal(call, images, "--part", "1/2")
    write_image(images / "new.png", 99)
    (images / "4.png").rename(images.parent / "4.png")
    assert "1 is new (new.png) and 1 is gone (4.png)" in refusal(call, images)
    (images / "new.png").unlink()
    (images.parent / "4.png").rename(images / "4.png")
    write_image(images / "5.png", 55)
    message = refusal(call, images)
    assert "1 file has changed in size or modification time" in message
    assert "5.png" in message
    assert (images.parent / "pack" / "images.npy").read_bytes() == kept
    (images.parent / "pack" / "mine.txt").write_text("kept")
    assert call(*packing(images, "--overwrite"))[0] == 0
    check_pixels(images.parent / "pack", images)
    assert (images.parent / "pack" / "mine.txt").read_text() == "kept"


def test_unreadable_images_are_named_and_packed_when_repaired(images: Path, call: Call) -> None:
    good = {name: (images / name).read_bytes() for name in ("2.png", "sub/8.png")}
    (images / "2.png").write_bytes(b"<html>")
    (images / "sub/8.png").write_bytes(good["sub/8.png"][:60])
    code, out, err = call(*packing(images))
    assert (code, err.count("\n")) == (2, 1)
    assert "2 of 10 images cannot be read (2.png, sub/8.png)" in err
    assert "unreadable   2.png: Image " in out
    assert "unreadable   sub/8.png: Image " in out
    (images / "2.png").write_bytes(good["2.png"])
    code, out, _ = call(*packing(images, "--on_bad_image", "skip"))
    assert code == 0
    assert "1 of them marked as unreadable" in out
    (pack,) = open_packs(images.parent / "pack")
    ((row, reason),) = pack.unreadable.items()
    assert row == 8
    assert "cut short" in reason
    assert not pack.images[8].any()
    (images / "sub/8.png").write_bytes(good["sub/8.png"])
    code, out, _ = call(*packing(images))
    assert code == 0
    assert "unreadable   " not in out
    check_pixels(images.parent / "pack", images)


def test_a_disk_that_is_too_small_is_reported_before_anything_is_written(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 300_000_000))
    assert "needs 36.0 GB and 300.0 MB are free" in refusal(call, images, "--size", 60_000)
    assert not (images.parent / "pack").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--out", "taken/below"), "below cannot be made because taken is a file: give a folder"),
        (("--out", "images"), "holds files of something else"),
        (("--train_dir", "empty"), "holds no image"),
        (("--part", "9/8"), "--part 9/8 is not a valid part: give it like 2/8"),
        (("--part", "1/20"), "10 images cannot be divided into 20 parts"),
        (("--size", 0), "--size must be at least 1, not 0"),
        (("--source", "nih"), "--source is given once for each --train_csv"),
    ],
)
def test_flags_that_mean_nothing_are_refused(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple, expected: str
) -> None:
    monkeypatch.chdir(images.parent)
    Path("taken").write_text("mine")
    Path("empty").mkdir()
    assert expected in refusal(call, images, *flags)
    assert not (images.parent / "pack").exists()
    assert Path("taken").read_text() == "mine"


def test_help_needs_no_decoder() -> None:
    code = f"import sys; sys.argv = ['pack', '--help']; sys.path.insert(0, {os.getcwd()!r})\n"
    code += "from core.data.pack.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert not {'cv2', 'torch', 'pandas', 'numpy'} & set(sys.modules)"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def test_a_file_that_changes_while_it_is_packed_is_reported(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = writer.decode_blocks

    def change_first(*arguments: Any) -> None:
        write_image(images / "3.png", 33)
        os.utime(images / "3.png", ns=(0, time.time_ns() + 10**9))
        decode(*arguments)

    monkeypatch.setattr(writer, "decode_blocks", change_first)
    code, out, _ = call(*packing(images))
    assert code == 2
    assert "3.png was changed while it was packed" in out
    monkeypatch.undo()
    assert call(*packing(images))[0] == 0
    check_pixels(images.parent / "pack", images)


def test_a_second_packer_is_refused(images: Path, call: Call) -> None:
    with lock_folder(images.parent / "pack", ""):
        assert "another process is packing into" in refusal(call, images)
    assert call(*packing(images))[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_reported_and_packing_resumes(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = writer.decode_blocks

    def fill_up(plan, blocks, index, folder, target, workers, note) -> None:
        decode(plan, blocks[:1], index, folder, target, workers, note)
        decode(plan, blocks[1:], index, folder, (Path("/dev/full"), 0), workers, note)

    monkeypatch.setattr(writer, "decode_blocks", fill_up)
    message = refusal(call, images)
    assert "cannot be written (No space left on device)" in message
    assert "rerun the command to resume" in message
    assert len((images.parent / "pack" / "pack.blocks.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(writer, "decode_blocks", decode)
    assert call(*packing(images))[0] == 0
    check_pixels(images.parent / "pack", images)
