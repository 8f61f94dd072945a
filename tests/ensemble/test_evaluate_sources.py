"""`python -m ensemble.evaluate` scores against a known source's own table."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_scores import Command, read_json

from core.data.sources.nih import LABELS
from ensemble.evaluate import main

FIXTURES = Path(__file__).resolve().parents[1] / "core" / "data" / "sources"
NIH = FIXTURES / "nih" / "Data_Entry_2017_v2020.csv"


@pytest.fixture
def command(call: Command) -> Command:
    """Runs the command in this process: (exit code, stdout, stderr)."""
    return partial(call, main)


def predict(path: Path, images: list[str], mass: list[float]) -> Path:
    frame = pd.DataFrame(np.full((len(images), len(LABELS)), 0.5), columns=list(LABELS))
    frame["Mass"] = mass
    frame.insert(0, "ImageID", images)
    frame.to_csv(path, index=False)
    return path


def test_the_official_test_alone_is_scored(command: Command, tmp_path: Path) -> None:
    # of the fixture's test_list.txt; 00000003_001.png alone of these has a mass
    images = ["00000003_000.png", "00000003_001.png"]
    path = predict(tmp_path / "p.csv", images, [0.1, 0.9])
    flags = ("--predictions", path, "--labels", NIH, "--train_csv", NIH, "--resamples", 0)
    code, _, error = command(*flags)
    assert code == 2
    assert "images of" in error
    code, printed, error = command(*flags, "--official_split", "test")
    assert (code, error) == (0, "")
    assert "its official test, are taken alone" in printed
    found = read_json(tmp_path / "p_metrics.json")
    mass = found["per_class"]["Mass"]
    assert (mass["n"], mass["positives"], mass["auroc"]) == (2, 1, 1.0)
    # none of the training images has one
    assert mass["prevalence"] == 0
