"""`--help` of every study is answered before a heavy package is imported."""

import subprocess
import sys

import pytest

from tests.helpers.training.small_run import ROOT

STUDIES = sorted(
    path.parent.name if path.stem == "__main__" else path.stem
    for path in (ROOT / "benchmarks" / "studies").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)

# refuses heavy packages
_CALL = """
import runpy, sys
for name in ("numpy", "pandas", "torch", "scipy", "cv2", "sklearn", "timm"):
    sys.modules[name] = None
study, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(f"benchmarks.studies.{study}", run_name="__main__")
"""


@pytest.mark.parametrize("study", STUDIES)
def test_help_is_answered_without_a_heavy_package(study: str) -> None:
    command = [sys.executable, "-c", _CALL, study, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"benchmarks.studies.{study}" in done.stdout
