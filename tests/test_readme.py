"""The README's commands are commands: their flags parse, their modules and targets are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from core.cli import parse
from methods.standard_head.config import PRESETS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "methods/standard_head/README.md"]


def commands() -> list[str]:
    """Every line of the pages, and every piece of code in a line, that starts a program of ours."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        pieces = [*text.splitlines(), *re.findall(r"`([^`]+)`", text)]
        starts = [piece.strip() for piece in pieces]
        found += [piece for piece in starts if re.match(r"(python|fabric run|make) [a-z-]", piece)]
    return sorted({command.split("  #")[0].strip() for command in found})


def test_there_are_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", commands())
def test_command(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
        return
    script = next(word for word in words if word.endswith("train.py"))
    assert (ROOT / script).is_file()
    rest = words[words.index(script) + 1 :]
    if words[0] == "fabric":
        # what comes before -- is the launcher's
        rest = rest[rest.index("--") + 1 :] if "--" in rest else []
    parse(PRESETS, arguments=rest)


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), (page, target)
