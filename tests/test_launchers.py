"""`fabric run` and `torchrun` with two processes on a CPU, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.faults.commands import assert_complete, training
from tests.helpers.training.small_run import ROOT

STARTS = {
    "fabric": [
        *(str(Path(sys.executable).with_name("fabric")), "run", "--accelerator", "cpu"),
        *("--main-port", "29511", "--devices", "2", "methods/standard_head/train.py", "--"),
    ],
    "torchrun": [
        *(sys.executable, "-m", "torch.distributed.run", "--master-port", "29512"),
        *("--nproc-per-node", "2", "methods/standard_head/train.py"),
    ],
}


def launched(start: list[str], *words: object) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = subprocess.run(
        [*start, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["fabric", pytest.param("torchrun", marks=pytest.mark.soak)])
def test_two_processes_make_one_run(name: str, phantom: Path, tmp_path: Path) -> None:
    """In the short form tests/faults has torchrun's agent in every test."""
    out = tmp_path / "out"
    code, printed = launched(STARTS[name], *training(phantom, out, "--num_workers", 1))
    assert code == 0, printed[-3000:]
    assert "2 x cpu" in printed
    assert printed.count("run folder") == 1
    assert pd.read_csv(out / "timing.csv")["processes"].tolist() == [2, 2, 2]
    assert_complete(out)


@pytest.mark.soak
def test_errors_of_a_launch_are_one_sentence(phantom: Path, tmp_path: Path) -> None:
    """`fabric run` itself answers 1 to a script's 2; the sentence comes first."""
    words = training(phantom, tmp_path / "out")
    code, printed = launched(STARTS["fabric"], *words, "--labels", "Mas")
    assert (code, printed.count("error: ")) == (1, 1)
    assert "did you mean 'Mass'?" in printed
    start = ["auto" if word == "2" else word for word in STARTS["fabric"]]
    code, printed = launched(start, *words)
    assert code == 1
    assert "--devices auto starts a single process; give a number" in printed
    assert not (tmp_path / "out").exists()
