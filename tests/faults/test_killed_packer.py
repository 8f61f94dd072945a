"""A stopped packer keeps its finished blocks and resumes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.data.images.pack_format import open_packs
from core.data.pack.__main__ import main
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.faults.commands import packing, slow_images
from tests.helpers.faults.launch import Launch, wait_until
from tests.helpers.faults.launches import PACK, Launches, at
from tests.helpers.faults.trials import Command

STOPPED = "Stopped. Rerun the same command to resume.\n"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return packing(slow_images(tmp_path / "images"), tmp_path, 1024)


@pytest.fixture
def slow(launches: Launches, command: Command) -> Launch:
    """A packer that has done the first of 15 blocks."""
    launch = launches.start(PACK, *command.arguments, moment=at("block", 1))
    launch.comes_to_its_moment()
    return launch


def blocks(folder: Path) -> int:
    """Number of blocks that are noted as done."""
    return len((folder / "pack" / "pack.blocks.jsonl").read_text().splitlines())


@pytest.mark.fault("SIGTERM, SIGUSR1 or Ctrl-C")
@pytest.mark.parametrize(
    ("number", "send"),
    [
        *((signal.SIGINT, os.kill), (signal.SIGTERM, os.kill)),
        *((signal.SIGTERM, os.killpg), (signal.SIGUSR1, os.killpg)),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM to the whole job", "SIGUSR1 to the whole job"],
)
def test_an_interrupted_packer_exits_cleanly_and_resumes(
    slow: Launch,
    command: Command,
    call: Call,
    number: int,
    send: Callable[[int, int], None],
) -> None:
    """SLURM signals all processes of a job step, those too that decode."""
    send(slow.pid, number)
    if send is os.kill:
        # again by an impatient hand
        time.sleep(0.01)
        send(slow.pid, number)
    assert slow.ends() == 128 + number
    assert slow.printed.strip("\n") == STOPPED.strip("\n")
    assert 1 <= blocks(command.folder) < 15
    assert call(main, *command.arguments)[0] == 0
    (whole,) = open_packs(command.folder / "pack")
    assert (whole.images[1:] == whole.images[0]).all()


def test_a_killed_packer_resumes(slow: Launch, command: Command, call: Call) -> None:
    pack = command.folder / "pack"
    slow.send(signal.SIGKILL)
    assert slow.wait() == -signal.SIGKILL
    assert 1 <= blocks(command.folder) < 15
    assert not (pack / "pack.json").exists()
    with pytest.raises(UserError, match="is not finished: rerun the command that packs it"):
        open_packs(pack)
    # its processes end with it
    wait_until(lambda: not slow.processes(), 10)

    # a mark in a block that is done is there afterwards: it was not decoded again
    with (pack / "images.npy").open("rb+") as file:
        file.seek(-30 * 1024**2, os.SEEK_END)
        level = file.read(1)[0]
        file.seek(-30 * 1024**2, os.SEEK_END)
        file.write(bytes([level ^ 255]))
    with (pack / "pack.blocks.jsonl").open("a") as file:  # what a kill may leave of a line
        file.write('[14, "00')
    assert call(main, *command.arguments)[0] == 0
    (whole,) = open_packs(pack)
    assert whole.images[0, 0, 0] == level ^ 255
    assert (whole.images[1:] == whole.images[1]).all()
    code, out, err = call(main, "--verify", "--out", pack)
    assert code == 2
    assert "1 of 15 blocks" in err
    assert "block 0 of" in err
    assert "(rows 0 to 1: 000.png, 001.png)" in out
