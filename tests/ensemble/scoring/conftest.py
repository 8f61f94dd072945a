"""The command and its files, for tests of `python -m ensemble.evaluate`."""

from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from ensemble.evaluate import main
from tests.helpers.synthetic.scores import Command, Files, make_files


@pytest.fixture
def command(call: Command) -> Command:
    """Runs the command in this process, again and again: (exit code, stdout, stderr)."""
    return partial(call, main, "--overwrite")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with blank pictures: to draw them takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(b"\x89PNG"))
    for name in ("classes", "precision_recall", "histograms", "reliability", "cooccurrence"):
        monkeypatch.setattr(f"core.report.figures.{name}_figure", lambda *_: Figure())
    for name in ("compared_figure", "compared_precision_recall", "compared_reliability"):
        monkeypatch.setattr(f"ensemble.scoring.page.{name}", lambda *_: Figure())
