"""Programs as a user starts them, with loader workers, killed at random moments until they end."""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.faults.killed_commands import (
    Command,
    inferring,
    packing,
    start_process,
    training,
    trial,
)
from tests.helpers.training.small_run import METHODS, MODEL

# a program that imports torch and timm spends half of so short a life on it: few kills there
KILLS = dict.fromkeys([*METHODS, "infer"], 3) | {"pack": 8}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where these programs put their temporary files: a short path, as sockets lie in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def command(
    phantom: Path, tmp_path: Path, finished_method: Callable[[str], tuple[Path, str]]
) -> Callable[[str], Command]:
    """A command by a short name."""

    def choose(name: str) -> Command:
        folder = tmp_path / name
        if name == "infer":
            made = finished_method("csra_db_cas")[0] / f"{MODEL}_fold1.safetensors"
            return inferring([made], phantom / "images", folder, "--num_workers", 2)
        if name != "pack":
            return training(name, phantom, folder, "--num_workers", 2)
        noise = np.random.default_rng(0).integers(0, 256, (1200, 1200), dtype=np.uint8)
        (tmp_path / "noise").mkdir()
        first = tmp_path / "noise" / "000.png"
        first.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
        for number in range(1, 30):
            os.link(first, tmp_path / "noise" / f"{number:03}.png")
        return packing(tmp_path / "noise", folder, 1024)

    return choose


@pytest.mark.parametrize("name", KILLS)
def test_a_program_that_is_killed_again_and_again(
    name: str, command: Callable[[str], Command], temporary: Path, fault: Fault, soak: bool
) -> None:
    if not soak:
        pytest.skip("a minute: part of --soak")
    start = partial(start_process, temporary=temporary)
    random = np.random.default_rng()
    with trial(command(name), start, temporary.with_suffix(".undisturbed")) as one:

        def draw(within: float) -> tuple[tuple[str, float], bool]:
            # the first third of a life is imports
            share = 1 - random.random() * (0.7 if name != "pack" else 1)
            return ("seconds", share * within * one.undisturbed.seconds), bool(random.integers(2))

        try:
            while len(one.killed) < KILLS[name]:
                one.kill_until_it_ends(draw)
                one.clear()
        finally:
            fault(f"SIGKILL while {one.command.name}", len(one.killed))
    # a folder for the sockets of Python's own processes, and what torch leaves in any case
    assert all(path.name.startswith(("pymp-", "torchinductor_")) for path in temporary.iterdir())
