"""A packer that was stopped goes on; two on one folder, and a full disk, are told."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Call
from pack_cases import check_pixels, images, packing
from small_run import ROOT

from core.data import pack_writing
from core.data.pack import main
from core.data.pack_format import open_packs
from core.errors import UserError

__all__ = ["images"]


def children(process: int) -> set[int]:
    """All processes below one."""
    found = set()
    for task in os.listdir(f"/proc/{process}/task"):
        for child in Path(f"/proc/{process}/task/{task}/children").read_text().split():
            found |= {int(child)} | children(int(child))
    return found


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


PIPES: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """A packer in a process of its own that has done the first of 15 blocks, and its flags."""
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    first = tmp_path / "images" / "000.png"
    first.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    for number in range(1, 30):
        os.link(first, tmp_path / "images" / f"{number:03}.png")
    flags = ["--train_dir", str(tmp_path / "images"), "--size", "1024"]
    flags += ["--out", str(tmp_path / "pack"), "--num_workers", "1"]
    command = [sys.executable, "-m", "core.data.pack", *flags]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **PIPES) as it:
        notes = tmp_path / "pack" / "pack.blocks.jsonl"
        wait_until(lambda: notes.exists() and notes.read_text())
        yield it, flags
        it.kill()


@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGINT, os.kill), (signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg)],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM to the whole job"],
)
def test_an_interrupted_packer_ends_in_peace_and_goes_on(
    slow: tuple[subprocess.Popen, list[str]],
    tmp_path: Path,
    call: Call,
    number: int,
    send: Callable[[int, int], None],
) -> None:
    process, flags = slow
    send(process.pid, number)
    if send is os.kill:
        # again by an impatient hand
        time.sleep(0.01)
        send(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert out.decode().strip() == "Stopped. The same command goes on where this one was."
    assert not err
    assert 1 <= len((tmp_path / "pack" / "pack.blocks.jsonl").read_text().splitlines()) < 15
    assert call(main, *flags)[0] == 0
    (whole,) = open_packs(tmp_path / "pack")
    assert (whole.images()[1:] == whole.images()[0]).all()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_packer_goes_on(
    slow: tuple[subprocess.Popen, list[str]], tmp_path: Path, call: Call
) -> None:
    (process, flags), pack = slow, tmp_path / "pack"
    notes = pack / "pack.blocks.jsonl"
    below = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(notes.read_text().splitlines())
    assert 1 <= done < 15
    assert not (pack / "pack.json").exists()
    with pytest.raises(UserError, match="is not finished: give the command that packs it again"):
        open_packs(pack)
    # its processes end with it
    wait_until(lambda: not any(map(is_running, below)), 10)

    # a mark in a block that is done is there afterwards: it was not decoded again
    with (pack / "images.npy").open("rb+") as file:
        file.seek(-30 * 1024**2, os.SEEK_END)
        level = file.read(1)[0]
        file.seek(-30 * 1024**2, os.SEEK_END)
        file.write(bytes([level ^ 255]))
    with notes.open("a") as file:  # what a kill may leave of a line
        file.write('[14, "00')
    assert call(main, *flags)[0] == 0
    (whole,) = open_packs(pack)
    assert whole.images()[0, 0, 0] == level ^ 255
    assert (whole.images()[1:] == whole.images()[1]).all()
    code, out, err = call(main, "--verify", "--out", pack)
    assert code == 2
    assert "1 of 15 blocks" in err
    assert "block 0 of" in err
    assert "(rows 0 to 1: 000.png, 001.png)" in out


def test_a_kill_between_any_two_files_of_the_end_or_the_beginning(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of a file may be the last one of a packer."""
    write, stops = pack_writing.write_atomically, 0
    for allowed in range(20):
        left = allowed

        def stop(path: Path, fill: Callable[[Path], object]) -> None:
            nonlocal left
            if not left:
                path.with_name(f".{path.stem}.1234{path.suffix}").touch()
                raise KeyboardInterrupt
            left -= 1
            write(path, fill)

        monkeypatch.setattr(pack_writing, "write_atomically", stop)
        code, _, _ = call(*packing(images))
        monkeypatch.setattr(pack_writing, "write_atomically", write)
        assert code in (0, 130)
        stops += code == 130
        assert call(*packing(images))[0] == 0
        check_pixels(images.parent / "pack", images)
        if code == 0:
            break
        shutil.rmtree(images.parent / "pack")
    assert stops == 5  # index, notes and plan; index and facts


def test_a_second_packer_is_refused(images: Path, call: Call) -> None:
    # a lock holds against other processes only
    code = "import sys; from pathlib import Path; from core.atomic import lock_folder\n"
    code += "lock = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, images.parent / "pack"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        status, _, err = call(*packing(images))
        holder.stdin.close()
    assert status == 2
    assert "another process is packing into" in err
    assert call(*packing(images))[0] == 0


def test_a_disk_that_is_full_in_the_middle_is_told_and_goes_on(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pack_writing.decode_blocks

    def fill_up(plan, blocks, index, folder, target, workers, note) -> None:
        decode(plan, blocks[:1], index, folder, target, workers, note)
        decode(plan, blocks[1:], index, folder, (Path("/dev/full"), 0), workers, note)

    monkeypatch.setattr(pack_writing, "decode_blocks", fill_up)
    code, _, err = call(*packing(images))
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot be written: No space left on device" in err
    assert "the same command goes on" in err
    assert len((images.parent / "pack" / "pack.blocks.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(pack_writing, "decode_blocks", decode)
    assert call(*packing(images))[0] == 0
    check_pixels(images.parent / "pack", images)


def test_no_room_for_the_array_is_told(
    images: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    code, _, err = call(*packing(images))
    assert code == 2
    assert "No space left on device" in err
    monkeypatch.undo()
    assert call(*packing(images))[0] == 0
