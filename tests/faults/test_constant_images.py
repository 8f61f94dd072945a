"""Images of one grey level (failed exports): no NaN, and a warning with their names."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from core.models.checkpoint import load_tensors
from tests.conftest import Call, Train
from tests.helpers.fault_table import Fault
from tests.helpers.training.small_run import METHODS, MODEL, flags

NAME = "image of one grey level"


def constant(path: Path, level: int) -> None:
    cv2.imwrite(str(path), np.full((40, 40), level, dtype=np.uint8))


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may spoil."""
    return Path(shutil.copytree(phantom, tmp_path / "data"))


def check_finite(out: Path) -> None:
    history = pd.read_csv(out / "metrics.csv")
    assert np.isfinite(history[["train_loss", "mAP", "mAUROC"]]).all(axis=None)
    for path in out.glob("*.safetensors"):
        tensors, _ = load_tensors(path)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_constant_images_spoil_no_number(
    method: str,
    data: Path,
    tmp_path: Path,
    train_method: Callable[[str], Train],
    infer: Call,
    fault: Fault,
) -> None:
    """Every image is constant, each of another grey, with a batch of one image too."""
    names = pd.read_csv(data / "train.csv")["ImageID"]
    fault(NAME, len(names))
    for number, name in enumerate(names):
        constant(data / "images" / name, 4 * number)
    out = tmp_path / "out"
    code, printed, error = train_method(method)(*flags(data, out, "--run_folds", 1, "--epochs", 1))
    assert code == 0, error
    check_finite(out)
    counts = re.findall(r"Warning: (\d+) images? ha\w+ a single grey level", printed)
    # an epoch leaves out a batch at most
    assert len(names) - 8 <= sum(map(int, counts)) <= len(names)
    checkpoint = out / f"{MODEL}_fold1.safetensors"
    for batch in (1, 60):
        csv = tmp_path / f"{batch}.csv"
        arguments = ("--checkpoints", checkpoint, "--image_dir", data / "images")
        images = ("--test_csv", data / "train.csv", "--batch_size", batch, "--output", csv)
        code, _, error = infer(*arguments, *images)
        assert code == 0, error
        predicted = pd.read_csv(csv).drop(columns="ImageID")
        assert predicted.shape[0] == len(names)
        assert np.isfinite(predicted).all(axis=None)


def test_constant_images_are_named_once_a_fold(
    data: Path, tmp_path: Path, train: Train, soak: bool, fault: Fault
) -> None:
    names = pd.read_csv(data / "train.csv")["ImageID"].tolist()
    planted = [names[7], names[40]]
    fault(NAME, len(planted))
    for level, name in enumerate(planted):
        constant(data / "images" / name, 200 * level)
    for workers in (0, 1) if soak else (1,):
        out = tmp_path / str(workers)
        code, printed, _ = train(*flags(data, out, "--num_workers", workers, "--epochs", 1))
        assert code == 0
        warnings = [line for line in printed.splitlines() if "single grey level" in line]
        sentence = (
            "Warning: 2 images have a single grey level, like failed exports "
            f"({planted[0]}, {planted[1]}): remove their rows from the CSV."
        )
        assert warnings == [sentence] * 2
