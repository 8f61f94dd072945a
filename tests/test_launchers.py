"""`fabric run` and `torchrun` with two processes on a CPU, as a user starts them."""

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.faults.commands import assert_complete, training
from tests.helpers.faults.launches import TRAIN, Launches, Place, RealLaunches


@pytest.fixture
def launches(tmp_path: Path) -> Launches:
    return RealLaunches(tmp_path, range(29511, 29514))


@pytest.mark.parametrize(
    "fabric",
    [pytest.param(True, id="fabric"), pytest.param(False, marks=pytest.mark.soak, id="torchrun")],
)
def test_two_processes_make_one_run(
    fabric: bool, launches: Launches, phantom: Path, tmp_path: Path
) -> None:
    """In the short form tests/faults has torchrun's agent in every test."""
    out = tmp_path / "out"
    words = training(phantom, out, "--num_workers", 1)
    printed = launches.start(TRAIN, *words, place=Place(2), fabric=fabric).finishes()
    assert "2 x cpu" in printed
    assert printed.count("run folder") == 1
    assert pd.read_csv(out / "timing.csv")["processes"].tolist() == [2, 2, 2]
    assert_complete(out)


@pytest.mark.soak
def test_one_sentence_from_two_processes(launches: Launches, phantom: Path, tmp_path: Path) -> None:
    """In the short form tests/faults has processes that fail in start-up."""
    words = training(phantom, tmp_path / "out", "--labels", "Mas")
    assert "did you mean 'Mass'?" in launches.start(TRAIN, *words, place=Place(2)).sentence()
    assert not (tmp_path / "out").exists()
