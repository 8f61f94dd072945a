"""What is installed is pinned and whole, and a file that would run code runs none."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from core.data.pack.__main__ import main as pack
from core.errors import UserError
from core.models.checkpoint import load_tensors
from ensemble.calibrate import main as calibrate
from methods import load_model
from tests.conftest import Call, Train
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
        with pytest.raises(UserError, match="no whole safetensors file"):
            load(hostile(ending))
    assert not ran(tmp_path)


@pytest.mark.parametrize("flag", ["--weights_file", "--init_from", "--config", "--train_csv"])
def test_what_a_training_reads_runs_no_code(
    flag: str, hostile: Callable[[str], Path], phantom: Path, tmp_path: Path, train: Train
) -> None:
    words = flags(phantom, tmp_path / "out")
    if flag == "--weights_file":
        words += ["--pretrained"]
    code, _, error = train(*words, flag, hostile(".pkl"))
    assert code == 2
    assert "hostile.pkl" in error
    assert not ran(tmp_path)


@pytest.mark.parametrize("ending", [".png", ".npy", ".dcm", ".tif"])
def test_an_image_runs_no_code(
    ending: str,
    hostile: Callable[[str], Path],
    checkpoints: list[Path],
    tmp_path: Path,
    infer: Call,
) -> None:
    words = ["--checkpoints", checkpoints[0], "--output", tmp_path / "p.csv"]
    code, _, error = infer(hostile(ending), *words)
    assert code == 2
    assert "hostile" in error
    assert not ran(tmp_path)


def test_a_pack_runs_no_code(
    hostile: Callable[[str], Path], phantom: Path, tmp_path: Path, train: Train, call: Call
) -> None:
    words = ["--train_csv", phantom / "train.csv", "--train_dir", phantom / "images"]
    assert call(pack, *words, "--size", 32, "--out", tmp_path / "pack")[0] == 0
    (array,) = (tmp_path / "pack").glob("*.npy")
    whole = np.load(array)
    assert whole.dtype == np.uint8
    array.write_bytes(hostile(".npy").read_bytes())
    code, _, error = train(*flags(phantom, tmp_path / "out"), "--train_dir", tmp_path / "pack")
    assert code == 2
    assert str(array) in error
    assert not ran(tmp_path)


def test_what_the_ensemble_reads_runs_no_code(
    hostile: Callable[[str], Path],
    checkpoints: list[Path],
    phantom: Path,
    tmp_path: Path,
    infer: Call,
    call: Call,
) -> None:
    images = ["--image_dir", phantom / "images", "--output", tmp_path / "p.csv"]
    code, _, error = infer("--ensemble", hostile(".json"), *images)
    assert (code, "hostile.json" in error) == (2, True)
    calibrated = ["--checkpoints", checkpoints[0], "--calibration", hostile(".json")]
    code, _, error = infer(*calibrated, *images)
    assert (code, "hostile.json" in error) == (2, True)
    code, _, error = call(calibrate, "--predictions", hostile(".csv"), "--labels", hostile(".csv"))
    assert code == 2
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
        for file in ("Makefile", "README.md")
        for line in (ROOT / file).read_text().splitlines()
        if "pip install" in line and ".venv-lock" not in line
    ]
    assert len(installs) >= 3
    assert not [line for line in installs if "-c constraints.txt" not in line]
