"""Run folders and checkpoints of earlier versions load, resume, finish and predict the same.

`older_runs/0.1.0` was written by commit 141fae5: of each method a run whose first fold is finished
and whose second one was stopped in the middle of an epoch, and what that commit made of both later.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Call, Train
from small_run import METHODS, MODEL

OLDER = Path(__file__).with_name("older_runs") / "0.1.0"
# the flags that the run of each method was started with; label_coupling's came from a JSON file
COMMON = (
    "--preset small --train_csv data/train.csv --train_dir data/images --model test_efficientnet "
    "--no-pretrained --img_size 32 --batch_size 2 --folds 2 --epochs 3 --num_workers 0 "
    "--log_every 1"
)
MORE = {
    "standard_head": "--backbone_lr 1e-4",
    "csra_db_cas": "--warmup_head_epochs 2 --loss_options gamma=1",
    "label_coupling": "--lr 1e-4 --rotation 5 --seed 42 --warmup_epochs 1 --logit_adjust 0",
}


def flags_of(method: str) -> list[str]:
    """The command line that the older run was started with."""
    return f"{COMMON} {MORE[method]} --out_dir {method}".split()


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the older runs, as the working folder: their paths are relative to it."""
    folder = tmp_path / "older"
    shutil.copytree(OLDER, folder)
    monkeypatch.chdir(folder)
    return folder


def assert_close(ours: Path, recorded: Path) -> None:
    """Two tables of predictions agree to 1e-5."""
    first, second = (pd.read_csv(path, index_col="ImageID") for path in (ours, recorded))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-5)


def assert_finished(folder: Path, method: str) -> None:
    """The run in `folder` ended as the earlier version ended it."""
    recorded = OLDER / "finished" / method
    assert_close(
        folder / f"{MODEL}_fold1_val.csv",
        recorded / f"{MODEL}_fold1_val.csv",
    )
    assert_close(
        folder / f"{MODEL}_fold2_val.csv",
        recorded / f"{MODEL}_fold2_val.csv",
    )
    ours, theirs = (pd.read_csv(path / "metrics.csv") for path in (folder, recorded))
    assert ours["best"].tolist() == theirs["best"].tolist()
    np.testing.assert_allclose(ours["train_loss"], theirs["train_loss"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_predicts_the_same(method: str, older: Path, infer: Call) -> None:
    output = older / "predictions.csv"
    code, _, error = infer(
        *("--checkpoints", f"{method}/{MODEL}_fold1.safetensors", "--image_dir", "data/images"),
        *("--no-use_tta", "--output", output),
    )
    assert code == 0, error
    assert_close(output, OLDER / "finished" / method / "predictions.csv")


@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumes_by_its_flags(
    method: str, older: Path, train_method: Callable[[str], Train]
) -> None:
    before = json.loads((older / method / "config.json").read_text())
    code, printed, error = train_method(method)(*flags_of(method))
    assert code == 0, error
    assert printed.count("finished before") == 1
    assert_finished(older / method, method)
    assert json.loads((older / method / "config.json").read_text()) == before
