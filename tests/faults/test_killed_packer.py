"""A packer that is stopped in its midst keeps what is done, and goes on from there."""

import os
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

from core.data.images.pack_format import open_packs
from core.data.pack.__main__ import main
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.faults.killed_commands import members, wait_until
from tests.helpers.training.small_run import ROOT

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
        wait_until(lambda: notes.exists() and notes.read_text(), 60)
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
    assert (whole.images[1:] == whole.images[0]).all()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_packer_goes_on(
    slow: tuple[subprocess.Popen, list[str]], tmp_path: Path, call: Call
) -> None:
    (process, flags), pack = slow, tmp_path / "pack"
    notes = pack / "pack.blocks.jsonl"
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(notes.read_text().splitlines())
    assert 1 <= done < 15
    assert not (pack / "pack.json").exists()
    with pytest.raises(UserError, match="is not finished: give the command that packs it again"):
        open_packs(pack)
    # its processes end with it
    wait_until(lambda: not members({process.pid}), 10)

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
    assert whole.images[0, 0, 0] == level ^ 255
    assert (whole.images[1:] == whole.images[1]).all()
    code, out, err = call(main, "--verify", "--out", pack)
    assert code == 2
    assert "1 of 15 blocks" in err
    assert "block 0 of" in err
    assert "(rows 0 to 1: 000.png, 001.png)" in out
