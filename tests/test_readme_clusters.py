"""Batch file and torchrun lines of the docs, as far as testable without a cluster."""

import re
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from core.config.command_line import parse
from tests.helpers.slurm import batch_file
from tests.helpers.training.small_run import METHODS, ROOT, module

README = ROOT / "docs/clusters.md"
# of the manual of sbatch
OPTIONS = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time"}
OPTIONS |= {"signal", "requeue"}


def torchrun_lines() -> list[str]:
    text = README.read_text().replace("\\\n", " ")
    return [line.strip(" &") for line in re.findall(r"torchrun --nnodes.*", text)]


def arguments(line: str) -> Namespace:
    """What torchrun makes of it, with what the shell fills in."""
    words = ["2" if word == "$SLURM_NNODES" else word for word in shlex.split(line)]
    return get_args_parser().parse_args(words[1:])


def test_the_batch_file_is_bash(tmp_path: Path) -> None:
    path = tmp_path / "batch.sh"
    path.write_text(batch_file())
    judged = subprocess.run(["bash", "-n", path], capture_output=True, check=False)
    assert (judged.returncode, judged.stderr) == (0, b"")


def test_its_options_are_those_of_sbatch() -> None:
    given = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", batch_file(), re.MULTILINE))
    assert batch_file().count("#SBATCH") == len(given)
    assert given.keys() <= OPTIONS
    assert len(torchrun_lines()) == 2
    # to the batch shell alone, and the run has time to save before the limit
    before = re.fullmatch(r"B:USR1@(\d+)", given["signal"])
    assert before
    launcher = arguments(torchrun_lines()[1])
    assert int(before[1]) >= launcher.shutdown_timeout + 30
    passed_on = launcher.signals_to_handle.split(",")
    assert set(passed_on) > set(get_args_parser().get_default("signals_to_handle").split(","))
    assert "SIGUSR1" in passed_on


@pytest.mark.parametrize("line", torchrun_lines())
def test_torchrun_takes_its_flags_and_a_method_its_own(line: str) -> None:
    given = arguments(line)
    assert given.nnodes == "2"
    assert int(given.nproc_per_node) > 0
    method = given.training_script.split("/")[1]
    assert method in METHODS
    assert (ROOT / given.training_script).is_file()
    settings = parse(module(method, "config").PRESETS, arguments=given.training_script_args)
    assert settings.data.train_csv
