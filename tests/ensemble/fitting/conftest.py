"""The command and two runs, for tests of `python -m ensemble.choose`."""

from functools import partial
from pathlib import Path

import pytest

from ensemble.choose import main
from tests.helpers.synthetic.runs import Command, Runs, two_runs


@pytest.fixture
def command(call: Command, tmp_path: Path) -> Command:
    """Runs the command in this process, with two folds and into e.json unless given."""
    return partial(call, main, "--folds", 2, "--output", tmp_path / "e.json")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return two_runs(tmp_path)
