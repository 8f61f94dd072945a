"""`fabric run` and `torchrun` with two processes on a CPU."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.training.small_run import ROOT, fabric_run

MODEL = "test_vit"


def launch(launcher: list[str], data: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    """Start train.py under a launcher on small images."""
    command = [
        *launcher,
        "methods/standard_head/train.py",
        *("--preset", "small", "--train_csv", str(data / "train.csv")),
        *("--train_dir", str(data / "images"), "--out_dir", str(out)),
        *("--model", MODEL, "--no-pretrained", "--img_size", "160", "--batch_size", "4"),
        *("--folds", "2", "--run_folds", "1", "--epochs", "1", "--num_workers", "1"),
        *("--drop_rate", "0", "--log_every", "1"),
        *more,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def torchrun(port: int) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run"]
    return [*command, "--nproc-per-node", "2", "--master-port", str(port)]


@pytest.mark.parametrize(("launcher", "port"), [(fabric_run, 29511), (torchrun, 29512)])
def test_two_processes_make_one_run(
    launcher, port: int, phantom: Path, tmp_path: Path, soak: bool
) -> None:
    if launcher is torchrun and not soak:
        pytest.skip("in the long form: tests/faults has torchrun's agent in every test")
    done = launch(launcher(port), phantom, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 x cpu" in done.stdout
    assert done.stdout.count("run folder") == 1
    rows = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert rows["epoch"].tolist() == [1, 2]
    timing = pd.read_csv(tmp_path / "out" / "timing.csv")
    assert timing["processes"].tolist() == [2, 2]
    predicted = pd.read_csv(tmp_path / "out" / f"{MODEL}_fold1_val.csv")
    folds = pd.read_csv(tmp_path / "out" / "folds.csv")
    assert sorted(predicted["ImageID"]) == sorted(folds.loc[folds["fold"] == 1, "ImageID"])
    assert np.isfinite(predicted.drop(columns="ImageID")).all(axis=None)


def test_one_sentence_from_two_processes(phantom: Path, tmp_path: Path, soak: bool) -> None:
    if not soak:
        pytest.skip("in the long form: tests/faults has processes that fail in start-up")
    done = launch(fabric_run(29513), phantom, tmp_path / "out", "--labels", "Mas")
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert done.stderr.count("did you mean 'Mass'?") == 1
    assert not (tmp_path / "out").exists()
