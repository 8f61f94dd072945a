"""The documented batch file with fake SLURM commands: it requests a new start if and
only if the run was stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.data.phantom.dataset import make_phantom
from tests.helpers.faults.commands import assert_complete, training
from tests.helpers.faults.launch import in_session, wait_until
from tests.helpers.slurm import batch_file
from tests.helpers.training.small_run import ROOT

SRUN = """#!/bin/bash
log=${1#--output=}; shift
exec "$@" > "$log" 2>&1
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi
"""


@pytest.mark.soak
@pytest.mark.fault("time limit of a SLURM job", tried=3)
def test_the_batch_file_starts_again_what_was_stopped(tmp_path: Path) -> None:
    make_phantom(tmp_path, images=61, size=32, seed=3)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    script = batch_file().replace("--nproc-per-node 4", "--nproc-per-node 2")
    script = script.replace("methods/", f"{ROOT}/methods/").replace(":29500", ":29655")
    script = script.replace("--train_csv train.csv --train_dir images", '"$@"')
    (tmp_path / "batch.sh").write_text(script)
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here"}
    requeued, out = tmp_path / "requeued", tmp_path / "out"

    def start(number: int, *words: str) -> subprocess.Popen:
        again = {"SLURM_RESTART_COUNT": str(number)} if number else {}
        return subprocess.Popen(
            ["bash", "batch.sh", *words],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | job | again,
            start_new_session=True,
        )

    words = training(tmp_path, out, "--epochs", 60)
    stopped = start(0, *words)
    log = tmp_path / "cxr-7-0.log"
    wait_until(lambda: log.exists() and "epoch  3/" in log.read_text(), 200)
    stopped.send_signal(signal.SIGUSR1)
    assert stopped.wait(timeout=60) != 0
    assert requeued.read_text() == "requeue 7\n", log.read_text()
    assert not in_session(stopped.pid)
    requeued.unlink()
    assert start(1, *words).wait(timeout=300) == 0
    assert_complete(out, epochs=61)
    assert start(2, *words, "--labels", "Efusion").wait(timeout=60) != 0
    assert "did you mean" in (tmp_path / "cxr-7-2.log").read_text()
    assert not requeued.exists()
