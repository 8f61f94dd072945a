"""Plain words in code, tests and docs: phrases that have a usual term do not come back."""

import re
from pathlib import Path

from tests.helpers.training.small_run import ROOT

# in names too; the `tell` of a file is none
PHRASES = re.compile(
    r"(?<![a-z.])(told|tells?|anew|mend(s|ed)?|go(es)?[\s_]+on|whose|nobody)(?![a-z])",
    re.IGNORECASE,
)
FOLDERS = ("core", "methods", "ensemble", "benchmarks", "docs", "tests")
ENDINGS = {".py", ".html", ".jinja", ".js", ".md"}
RESUME_HINT = "the same command goes on from here"
# text of a file that stays: a quoted message, a message of version 0.1, a key of published files
EXCEPTIONS = {
    "CHANGELOG.md": RESUME_HINT,
    "core/training/loop.py": RESUME_HINT,
    "ensemble/exporting/export.py": '"told": self._outputs()',
    "tests/faults/test_nodes.py": RESUME_HINT,
    "tests/faults/test_preemption.py": RESUME_HINT,
}


def test_usual_terms_take_the_place_of_these_phrases() -> None:
    paths = [*ROOT.glob("*.md"), *(path for one in FOLDERS for path in (ROOT / one).rglob("*"))]
    found: list[tuple[str, str]] = []
    for path in sorted(path for path in paths if path.suffix in ENDINGS):
        name = path.relative_to(ROOT).as_posix()
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8").replace(EXCEPTIONS.get(name, "\0"), "")
            found += [(name, match[0]) for match in PHRASES.finditer(text)]
    assert found == []


def test_each_exception_is_needed() -> None:
    for name, text in EXCEPTIONS.items():
        assert PHRASES.search(text)
        assert text in (ROOT / name).read_text(encoding="utf-8"), name
