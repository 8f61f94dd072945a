"""Plain words in product code and docs: phrases that have a usual term do not come back."""

import re
from collections import Counter

from tests.helpers.training.small_run import ROOT

PHRASES = re.compile(r"\b(told|tells?|anew|mend(s|ed)?|go(es)?\s+on|whose|nobody)\b", re.IGNORECASE)
FOLDERS = ("core", "methods", "ensemble", "benchmarks", "docs")
ENDINGS = {".py", ".html", ".jinja", ".js", ".md"}
# text of a file that stays: a quoted message, a message of version 0.1, a key of published files
EXCEPTIONS = {
    "CHANGELOG.md": "the same command goes on from here",
    "core/training/loop.py": "the same command goes on from here",
    "ensemble/exporting/export.py": '"told": self._outputs()',
}
# phrases that are left in a folder; no other folder has any
CEILINGS: dict[str, int] = {
    "core/data/images/dicom": 2,
    "core/data/pack": 1,
}


def test_usual_terms_take_the_place_of_these_phrases() -> None:
    paths = [*ROOT.glob("*.md"), *(path for one in FOLDERS for path in (ROOT / one).rglob("*"))]
    found: list[tuple[str, str, str]] = []
    for path in sorted(path for path in paths if path.suffix in ENDINGS):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8").replace(EXCEPTIONS.get(name, "\0"), "")
        folder = path.parent.relative_to(ROOT).as_posix()
        found += [(folder, name, match[0]) for match in PHRASES.finditer(text)]
    counts = Counter(folder for folder, *_ in found)
    above = {folder for folder, count in counts.items() if count > CEILINGS.get(folder, 0)}
    assert [one for one in found if one[0] in above] == []


def test_each_exception_is_needed() -> None:
    for name, text in EXCEPTIONS.items():
        assert PHRASES.search(text)
        assert text in (ROOT / name).read_text(encoding="utf-8"), name
