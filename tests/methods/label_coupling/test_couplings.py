"""Table of couplings: values of the checkpoints, by name and direction."""

import io
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from core.config.command_line import run
from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from methods.label_coupling.config import ModelConfig
from methods.label_coupling.coupling_matrices import read_fold
from methods.label_coupling.couplings import main
from methods.label_coupling.model import build_model
from tests.helpers.training.small_run import MODEL, ROOT

pytestmark = pytest.mark.filterwarnings("error")
# from row on column
NAMES = ["Mass", "Edema", "Hernia"]
FIRST = [[0, 0.5, -0.25], [0.125, 0, 0], [1, 0, 0]]
SECOND = [[0, 0.25, 0], [-0.375, 0, -0.0], [-1, 0, 0]]
TABLE = """source,target,mean_weight,sign,folds_with_sign,folds,fold1,fold2
Mass,Edema,0.375,1,2,2,0.5,0.25
Mass,Hernia,-0.125,-1,1,2,-0.25,0
Edema,Mass,-0.125,-1,1,2,0.125,-0.375
Edema,Hernia,0,0,0,2,0,0
Hernia,Mass,0,0,0,2,1,-1
Hernia,Edema,0,0,0,2,0,0
"""
PRINTED = """Strongest couplings acting on each label, mean over 2 of 3 folds.
Exactly 0 in each of them: 2 of 6 ordered pairs (33 %).

label | acted on by | weight | effect | with that sign
-
Mass | Edema | -0.125 | against | 1 of 2 folds
Edema | Mass | +0.375 | for it | 2 of 2 folds
Hernia | Mass | -0.125 | against | 1 of 2 folds

"""


def write(
    path: Path, matrix: Any, names: Sequence[str] = NAMES, *, refiner: bool = True, **facts: Any
) -> Path:
    """A checkpoint, fold 1 of 3 by default."""
    settings = ModelConfig(model=MODEL, pretrained=False, refiner=refiner)
    tensors = build_model(settings, len(names)).state_dict()
    if refiner:
        tensors["head.coupling.A"] = torch.as_tensor(matrix).float()
    facts_of_all = {"method": "label_coupling", "model": model_settings(settings), "img_size": 32}
    save_tensors(
        path, tensors, facts_of_all | {"class_names": list(names), "fold": 1, "folds": 3} | facts
    )
    return path


def call(*arguments: object) -> tuple[int, str, str]:
    """The command in this process: (exit code, stdout, stderr)."""
    code, out, error = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        try:
            run(lambda: main([str(argument) for argument in arguments]))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, out.getvalue(), error.getvalue()


def show(*arguments: object) -> str:
    """What is printed where nothing is wrong, a bar between columns, a rule being one dash."""
    code, out, error = call(*arguments)
    assert (code, error) == (0, "")
    return re.sub("--+", "-", re.sub(" {2,}", " | ", out))


def refusal(*arguments: object) -> str:
    """Error message of the command."""
    code, out, error = call(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch("error: .+\n", error)
    return error


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    """The first two of three folds."""
    first, second = tmp_path / "m_fold1.safetensors", tmp_path / "m_fold2.safetensors"
    return [write(first, FIRST), write(second, SECOND, fold=2)]


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Where to write a further checkpoint."""
    return tmp_path / "one.safetensors"


def test_files_and_text(folds: list[Path]) -> None:
    out = folds[0].parent / "deep" / "er"
    show(folds[0], "--out_dir", out)
    printed = show(*folds, "--out_dir", out)
    csv, png = out / "couplings.csv", out / "couplings.png"
    assert printed == f"{PRINTED}Every ordered pair is in {csv}, the heat map in {png}.\n"
    assert csv.read_text() == TABLE
    assert imread(png).ndim == 3
    assert sorted(folds[0].parent.rglob("*")) == sorted([out.parent, out, csv, png, *folds])


@pytest.mark.parametrize("step", [1, -1])
def test_labels_are_matched_by_name(folds: list[Path], step: int) -> None:
    turned = ["Hernia", "Mass", "Edema"]
    matrix = [[0.0, -1, 0], [0, 0, 0.25], [0, -0.375, 0]]  # SECOND, labels in that order
    write(folds[1], matrix, turned, fold=2)
    printed = show(*folds[::step])
    # in the first one's order
    assert re.findall(r"^(\w+) \|", printed, re.MULTILINE)[1:] == (NAMES if step == 1 else turned)
    written = (folds[0].parent / "couplings.csv").read_text().splitlines()
    assert written[:2] == TABLE.splitlines()[:2]
    assert sorted(written) == sorted(TABLE.splitlines())


def test_strongest_first_and_no_more_than_top(one: Path) -> None:
    matrix = np.zeros((5, 5))
    matrix[1:, 0] = 0.25, -1, 0.00001, 0.5
    printed = show(write(one, matrix, "ABCDE", folds=1))
    assert "mean over 1 fold.\n" in printed
    assert "16 of 20 ordered pairs (80 %)" in printed
    none = ["B | none", "C | none", "D | none", "E | none"]
    rows = ["A | C | -1.00 | against", " | E | +0.500 | for it", " | B | +0.250 | for it"]
    rows = [f"{row} | 1 of 1 folds" for row in [*rows, " | D | +1.00e-05 | for it"]]
    assert printed.splitlines()[5:-2] == rows[:3] + none
    assert show(one, "--top", 1).splitlines()[5:-2] == rows[:1] + none
    assert show(one, "--top", 9).splitlines()[5:-2] == rows + none


def test_two_labels_with_a_diagonal_and_odd_names(one: Path) -> None:
    names = ['Effusion, "large"', "$\\frac$ NA"]
    matrix = [[9, 0.5], [0, 9]]
    assert "1 of 2 ordered pairs" in show(write(one, matrix, names))
    table = pd.read_csv(one.parent / "couplings.csv", keep_default_na=False)
    assert table.iloc[:, :3].to_numpy().tolist() == [[*names, 0.5], [*names[::-1], 0]]
    # the model leaves the diagonal out
    assert read_fold(one).weights.tolist() == [[0, 0.5], [0, 0]]


def test_source_and_target_are_those_of_the_model(one: Path) -> None:
    model = build_model(ModelConfig(model=MODEL, pretrained=False), 3)
    assert model.head.coupling is not None
    with torch.no_grad():
        model.head.coupling.A[0, 2] = -2
        change = model.head.coupling(torch.zeros(1, 3))[0]
    assert change[:2].tolist() == [0, 0]
    assert change[2] < 0  # Mass makes Hernia less likely
    write(one, model.state_dict()["head.coupling.A"], folds=1)
    wanted = ["Mass | none", "Edema | none", "Hernia | Mass | -2.00 | against | 1 of 1 folds"]
    assert show(one).splitlines()[5:8] == wanted


SPOILT: list[tuple[Any, dict[str, Any], str]] = [
    (FIRST, {"refiner": False}, "has no couplings"),
    ([[0, nan, 0], [0, 0, 0], [0, 0, 0]], {}, "not finite"),
    (FIRST, {"class_names": None}, "has no valid list of classes"),
    *((FIRST, {"fold": fold}, "no valid fold number") for fold in (None, 0, 4, True)),
    (FIRST, {"folds": 2.5}, "no valid fold number"),
]


def test_a_checkpoint_of_another_method(finished: tuple[Path, str], tmp_path: Path) -> None:
    path = finished[0] / f"{MODEL}_fold1.safetensors"
    assert "is of standard_head: give a checkpoint of" in refusal(path, "--out_dir", tmp_path)


@pytest.mark.parametrize(("matrix", "facts", "words"), SPOILT)
def test_spoilt_checkpoint(folds: list[Path], matrix: Any, facts: Any, words: str) -> None:
    write(folds[1], matrix, **({"fold": 2} | facts))
    for order in (folds, folds[::-1]):
        sentence = refusal(*order, "--out_dir", folds[0].parent / "out")
        assert f"error: {folds[1]}" in sentence
        assert words in sentence
    assert sorted(folds[0].parent.iterdir()) == folds


def test_no_checkpoint(folds: list[Path], one: Path) -> None:
    assert "No checkpoint is given" in refusal()
    assert f"{one} is not there" in refusal(*folds, one)
    assert f"{one.parent} is not an exported folder" in refusal(*folds, one.parent)
    for content in (b"text", folds[0].read_bytes()[:-7]):
        one.write_bytes(content)
        assert f"{one} is not a valid safetensors file" in refusal(*folds, one)
    assert sorted(one.parent.iterdir()) == [*folds, one]


def test_several_runs_and_a_fold_twice(folds: list[Path], one: Path) -> None:
    write(one, FIRST, fold=3, names=["Mass", "Oedema", "Hernia"])
    sentence = refusal(*folds, one)
    assert f"Edema only in {folds[0]}; Oedema only in {one}" in sentence
    assert "Hernia" not in sentence
    write(one, [[0, 0.5], [0, 0]], fold=3, names=["Hernia", "Mass"])
    assert f": Edema only in {folds[0]}\n" in refusal(*folds, one)
    write(one, FIRST, fold=3, folds=5)
    expected = f"{folds[0]} is one of 3 folds, {one} is one of 5 folds"
    assert expected in refusal(*folds, one)
    link = one.with_name("z_link")
    link.symlink_to(folds[0])
    for again in (folds[0], link, write(one, SECOND)):
        assert f"{folds[0]} and {again} are both fold 1" in refusal(*folds, again)
    assert sorted(one.parent.iterdir()) == [*folds, one, link]


def test_flags_that_cannot_be(folds: list[Path]) -> None:
    taken = folds[0].parent / "taken"
    taken.write_text("mine")
    for out in (taken, taken / "below"):
        assert f"--out_dir {out} is not a folder" in refusal(*folds, "--out_dir", out)
    for top in (0, -3):
        assert f"--top is {top}: give at least 1" in refusal(*folds, "--top", top)
    assert taken.read_text() == "mine"
    assert sorted(taken.parent.iterdir()) == [*folds, taken]


def test_help_as_a_user_asks_for_it() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "methods.label_coupling.couplings"]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout == "") == (0, False)
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    assert not imported & {"torch", "matplotlib", "pandas", "scipy", "sklearn"}
