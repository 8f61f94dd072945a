"""Fixtures for tests of `ensemble.export`."""

from pathlib import Path

import pytest

from ensemble.export import main
from tests.conftest import Call


@pytest.fixture
def export(call: Call, tmp_path: Path) -> Call:
    """Runs ensemble.export into `out` in this process: (exit code, stdout, stderr)."""

    def answer(*arguments: object) -> tuple[int, str, str]:
        return call(main, "--output", tmp_path / "out", *arguments)

    return answer
