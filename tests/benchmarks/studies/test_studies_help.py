"""`--help` and a mistyped flag of every study are answered before a heavy package is imported."""

import json
import subprocess
import sys

import pytest

from tests.helpers.training.small_run import ROOT

STUDIES = sorted(
    path.stem
    for path in (ROOT / "benchmarks" / "studies").glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)

# refuses heavy packages, and prints {study: [exit code, output, errors]} for the words it is given
_CALLS = """
import contextlib, io, json, runpy, sys

for name in ("numpy", "pandas", "torch", "scipy", "cv2", "sklearn", "timm"):
    sys.modules[name] = None

answers = {}
word, *studies = sys.argv[1:]
for study in studies:
    sys.argv = [study, word]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            runpy.run_module(f"benchmarks.studies.{study}", run_name="__main__")
            code = "it went on"
        except SystemExit as stop:
            code = stop.code
        except ImportError as wrong:
            code = str(wrong)
    answers[study] = code, out.getvalue(), error.getvalue()
print(json.dumps(answers))
"""


def answers(word: str) -> dict[str, tuple[object, str, str]]:
    """Exit code, output and errors by study."""
    command = [sys.executable, "-c", _CALLS, word, *STUDIES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("word", "expected", "text"),
    [
        ("--help", 0, "benchmarks.studies.{study}"),
        ("--hepl", 2, "unrecognized arguments: --hepl"),
    ],
)
def test_is_answered_without_a_heavy_package(word: str, expected: int, text: str) -> None:
    assert {"coverage", "nih1000", "serve_load"} <= set(STUDIES)
    found = answers(word)
    assert {study: code for study, (code, _, _) in found.items()} == dict.fromkeys(
        STUDIES, expected
    )
    for study, (_, out, error) in found.items():
        assert text.format(study=study) in out + error
