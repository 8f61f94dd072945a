"""Commands of the README and other pages: flags parse, modules and targets exist."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import EXTRA, QUESTIONS
from core.config.command_line import flags, parse
from tests.helpers.training.small_run import METHODS, ROOT, module

PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "core/losses/README.md"),
    "benchmarks/README.md",
    *(f"methods/{method}/README.md" for method in METHODS),
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")),
]
# where the settings of a command are that is not one file
CONFIGS = {
    **{name: f"{name}.__main__" for name in ("core.data.pack", "core.data.holdout")},
    "core.doctor": "core.doctor.config",
}


def commands() -> list[str]:
    """Every line of the pages, and every piece of code in a line, that starts a program of ours."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
        text = re.sub(r"^```\w*$", "", text, flags=re.MULTILINE)
        pieces = [*text.splitlines(), *re.findall(r"`([^`]+)`", text)]
        starts = [" ".join(piece.split()) for piece in pieces]
        found += [piece for piece in starts if re.match(r"(python|fabric run|make) [a-z-]", piece)]
    return sorted({command.split(" #")[0].strip() for command in found})


def test_there_are_commands() -> None:
    for start in ("make demo", *(f"python -m ensemble.{name}" for name in ("choose", "infer"))):
        assert any(command.startswith(start) for command in commands())
    assert len(commands()) >= 20


@pytest.mark.parametrize("command", commands())
def test_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    if words[:2] == ["python", "-m"]:
        name, rest = words[2], words[3:]
    else:
        script = next(word for word in words if word.endswith(".py"))
        name, rest = script.removesuffix(".py").replace("/", "."), words[words.index(script) + 1 :]
        if words[0] == "fabric":
            # what comes before -- is the launcher's
            rest = rest[rest.index("--") + 1 :] if "--" in rest else []
    assert importlib.util.find_spec(name) is not None
    if name == "benchmarks":
        assert {*rest} - {"--json", "figures.json"} <= {*QUESTIONS, *EXTRA}
    elif name in CONFIGS or name.startswith("ensemble."):
        monkeypatch.setattr(sys, "argv", [name, *(word for word in rest if word != "...")])
        config = flags(importlib.import_module(CONFIGS.get(name, name)).Config(), "")
        if name == "ensemble.infer":
            # --checkpoints takes all words that follow it
            assert (config.image is not None) == any(word.endswith(".png") for word in rest)
    elif name.startswith("methods.") and name.endswith(".train"):
        parse(module(name.split(".")[1], "config").PRESETS, arguments=rest)


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), (page, target)


def test_the_python_example_runs(finished: tuple[Path, str], tmp_path: Path) -> None:
    (checkpoint,) = finished[0].glob("*_fold1.safetensors")
    named = tmp_path / "outputs" / "standard_head" / "convnextv2_atto_fold1.safetensors"
    named.parent.mkdir(parents=True)
    named.write_bytes(checkpoint.read_bytes())
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip().split()[-1].replace(".", "").isdigit()


def test_the_front_page_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1300
