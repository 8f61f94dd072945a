"""Imports, --help and a training without POSIX-only modules."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.runtime import worker_failures
from core.runtime.worker_failures import allow_open_files, explain_failed_start, explain_lost_worker
from tests.helpers.training.small_run import METHODS, ROOT
from tests.helpers.without_posix import LEFT_OUT

COMMANDS = {
    *(f"methods.{method}.train" for method in METHODS),
    *("methods.label_coupling.couplings", "core.data.phantom.__main__", "core.data.pack.__main__"),
    "core.data.holdout.__main__",
    *("core.doctor.__main__", "benchmarks.__main__", "benchmarks.studies.nih1000"),
    *(f"ensemble.{name}" for name in ("infer", "evaluate", "choose", "calibrate", "explain")),
    *("ensemble.export", "ensemble.serve", "ensemble.average"),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/helpers/without_posix.py prints."""
    folder = tmp_path_factory.mktemp("without_posix")
    words = [sys.executable, "-m", "tests.helpers.without_posix", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"folder": folder}


def test_every_module_is_imported(seen: dict[str, Any]) -> None:
    packages = [ROOT / name for name in ("core", "methods", "ensemble", "benchmarks")]
    files = [path.relative_to(ROOT) for package in packages for path in package.rglob("*.py")]
    names = {str(path.with_suffix("")).replace("/", ".").replace("\\", ".") for path in files}
    expected = {name.removesuffix(".__init__") for name in names}
    seen_names = {*seen["modules"], *(package.name for package in packages), *LEFT_OUT}
    assert expected == seen_names


def test_every_command_answers_help(seen: dict[str, Any]) -> None:
    helps = {words[0]: words[1:] for words in seen["answers"] if words[1] == "--help"}
    assert set(helps) >= COMMANDS
    for name, (_, code, out, error) in helps.items():
        assert (code, error) == (0, ""), name
        assert "--help" in out, name


def test_a_pack_and_a_training_are_made(seen: dict[str, Any]) -> None:
    runs = {words[0]: words[-3:] for words in seen["answers"] if words[1] != "--help"}
    for name, (code, out, error) in runs.items():
        # the doctor finds fault with this computer, not with the run
        assert code == 0 or name == "core.doctor", error
        assert "Traceback" not in error, name
        assert out, name
    assert "1 fold trained to the end: 1" in runs["core.doctor"][1]
    folder: Path = seen["folder"]
    assert (folder / "pack" / "pack.json").is_file()
    assert (folder / "out" / "report.html").is_file()


def test_sentences_on_workers_name_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(worker_failures, "resource", None)
    allow_open_files()
    sentences = [
        str(explain_failed_start(OSError(number, os.strerror(number))))
        for number in (errno.EMFILE, errno.ENOSPC, errno.ENOENT)
    ]
    assert sentences[0] == (
        "no loader worker can be started: too many open files: give fewer --num_workers"
    )
    for sentence in (*sentences, str(explain_lost_worker(EOFError()))):
        assert "/dev/shm" not in sentence
        assert "--num_workers" in sentence


def test_each_make_target_is_two_commands_at_most_that_run_without_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    page = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Without make\n")[2]
    )
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert {name for name, _ in targets} == set(rows)
    for name, lines in targets:
        assert lines.count("\n") <= 2, name
        for command in re.split(r"&&|\n", lines):
            words = command.replace("--disable-pip-version-check", "").split()
            if words and words[0].startswith("$(BIN)/"):
                assert f"`{' '.join(words).removeprefix('$(BIN)/')}`" in rows[name]
