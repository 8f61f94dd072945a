"""Pinned dependencies, and no code execution by hostile files."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.errors import UserError
from core.models.checkpoint import load_tensors
from methods import load_model
from tests.conftest import Call
from tests.helpers.training.small_run import ROOT, flags


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[str], Path]:
    """Files of a kind that make `tmp_path`/ran where anything unpickles them."""
    ran = tmp_path / "ran"
    code = f"cos\nmkdir\n(S'{ran}'\ntR.".encode()

    def make(ending: str) -> Path:
        path = tmp_path / f"hostile{ending}"
        if ending == ".pt":
            # as torch has saved since version 1.6
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", code)
                archive.writestr("archive/version", "3\n")
        elif ending == ".npy":
            header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
            padded = header.ljust(117) + "\n"
            path.write_bytes(
                b"\x93NUMPY\x01\x00" + bytes([len(padded), 0]) + padded.encode() + code
            )
        else:
            path.write_bytes(code)
        return path

    return make


def ran(tmp_path: Path) -> bool:
    return (tmp_path / "ran").exists()


def test_the_hostile_file_is_one(hostile: Callable[[str], Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pickle", str(hostile(".pkl"))]
    subprocess.run(command, capture_output=True, check=False)
    assert ran(tmp_path)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".npy"])
def test_checkpoints_run_no_code(
    ending: str, hostile: Callable[[str], Path], tmp_path: Path
) -> None:
    for load in (load_model, load_tensors):
        with pytest.raises(UserError, match="not a valid safetensors file"):
            load(hostile(ending))
    assert not ran(tmp_path)


INFER = "--checkpoints {checkpoint} --image_dir {images} --output {out}.csv"
# module of a command, its words with {file} for the hostile one, and that file's ending
READS = [
    ("methods.standard_head.train", "{run} --pretrained --weights_file {file}", ".pkl"),
    ("methods.standard_head.train", "{run} --config {file}", ".pkl"),
    ("methods.standard_head.train", "{run} --train_csv {file}", ".pkl"),
    ("ensemble.infer", "{file} --checkpoints {checkpoint} --output {out}.csv", ".npy"),
    ("ensemble.infer", "--ensemble {file} --image_dir {images} --output {out}.csv", ".json"),
    ("ensemble.infer", f"{INFER} --calibration {{file}}", ".json"),
    ("ensemble.average", "--checkpoints {checkpoint} {file}", ".safetensors"),
    ("ensemble.calibrate", "--predictions {file} --labels {file}", ".csv"),
]


@pytest.mark.parametrize(("module", "words", "ending"), READS)
def test_a_command_runs_no_code(
    module: str,
    words: str,
    ending: str,
    hostile: Callable[[str], Path],
    checkpoints: list[Path],
    phantom: Path,
    tmp_path: Path,
    call: Call,
) -> None:
    out, images = tmp_path / "out", phantom / "images"
    places = {"checkpoint": checkpoints[0], "images": images, "out": out, "file": hostile(ending)}
    words = words.replace("{run}", " ".join(flags(phantom, out)))
    code, _, error = call(import_module(module).main, *words.format(**places).split())
    assert code == 2
    assert f"hostile{ending}" in error
    assert not ran(tmp_path)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [Requirement(text) for texts in lists for text in texts]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([^=]+)", line)
        assert pin, line
        pins[pin[1].lower().replace("_", "-")] = pin[2]
    assert len(asked) > 20
    for requirement in asked:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_set_up_is_by_the_pins() -> None:
    installs = [
        line
        for file in (
            "Makefile",
            "README.md",
            "CONTRIBUTING.md",
            "docs/inference.md",
            "docs/data.md",
        )
        for line in (ROOT / file).read_text().splitlines()
        if "pip install" in line and ".venv-lock" not in line
    ]
    assert len(installs) >= 3
    assert not [line for line in installs if "-c constraints.txt" not in line]
