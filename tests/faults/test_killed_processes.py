"""Programs as a user starts them, with loader workers, killed at random moments until they end."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.faults.commands import packing, predicting_of, slow_images, training_of
from tests.helpers.faults.launches import RealLaunches
from tests.helpers.faults.trials import Command, Drawn, Trial
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
        if name == "pack":
            return packing(slow_images(tmp_path / "noise"), folder, 1024)
        if name != "infer":
            return training_of(name, phantom, folder, "--num_workers", 2)
        made = finished_method("csra_db_cas")[0] / f"{MODEL}_fold1.safetensors"
        return predicting_of([made], phantom, folder, "--num_workers", 2)

    return choose


@pytest.mark.soak
@pytest.mark.parametrize("name", KILLS)
def test_a_program_that_is_killed_again_and_again(
    name: str, command: Callable[[str], Command], temporary: Path, fault: Fault
) -> None:
    made = tempfile.mkdtemp()
    environment = {"TMPDIR": str(temporary)}
    one = Trial(command(name), RealLaunches(Path(made), range(1), environment))
    one.fault = fault
    random = np.random.default_rng()

    def draw(within: float) -> Drawn:
        # the first third of a life is imports
        share = 1 - random.random() * (0.7 if name != "pack" else 1)
        return "seconds", share * within * one.first.seconds, bool(random.integers(2))

    while len(one.killed) < KILLS[name]:
        one.kill_until_it_ends(draw)
        one.begin()
    one.wait_for_killed()
    # a folder for the sockets of Python's own processes, and what torch leaves in any case
    assert all(path.name.startswith(("pymp-", "torchinductor_")) for path in temporary.iterdir())
