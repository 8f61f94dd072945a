"""Doctor command: findings on valid and damaged data, and exit codes."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pandas as pd
import pytest

from core.doctor import environment
from core.doctor.findings import WIDTH, Findings
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.doctor import ROWS, Doctor, data, doctor, edit, marked, sound_machine

__all__ = ["data", "doctor", "sound_machine"]


def test_sound_data_end_with_0(doctor: Doctor, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    code, findings, text = doctor()
    assert code == 0
    assert not marked(findings, "✗")
    good = marked(findings, "✓")
    for part in (
        f"each image has a file in {data / 'images'}",
        f"{ROWS} images can be read, 40 x 40 to 40 x 40 px",
        f"{ROWS} images, {table['PatientID'].nunique()} patients",
        "a single grey level",
    ):
        assert part in good
    # the table of folds, as a training prints it
    positives = sum(map(int, re.findall(r"^ +Effusion +(\d+) +(\d+) ", text, re.MULTILINE)[0]))
    assert positives == (table["Effusion"] == "1").sum()
    assert "--full looks for them" in marked(findings, "-")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert re.search(rf"^{len(findings)} checks: \d+ ✓", text, re.MULTILINE)


def test_a_broken_image_is_named_and_the_others_are_still_checked(
    doctor: Doctor, data: Path
) -> None:
    first, second, gone = sorted((data / "images").iterdir())[:3]
    first.write_bytes(first.read_bytes()[:200])
    cv2.imwrite(str(second), np.full((40, 40), 7, dtype=np.uint8))
    code, findings, text = doctor()
    assert code == 1
    bad = marked(findings, "✗")
    assert f"of {ROWS} images, 1 cannot be read: {first.name}" in bad
    assert "remove their rows from the CSV" in bad
    constant = f"1 image has a single grey level, like failed exports ({second.name})"
    assert constant in marked(findings, "!")
    assert f"(see {1 + [mark for mark, _ in findings].index('✗')})" in text
    # a missing one
    gone.unlink()
    code, findings, _ = doctor("--full")
    assert code == 1
    missing = f"1 of {ROWS} images has no file in {data / 'images'}: {gone.name}"
    assert missing in marked(findings, "✗")
    assert f"{ROWS} images, " in marked(findings, "✓")
    assert "every image needs a file first" in marked(findings, "-")


def test_labels_that_cannot_be_learnt(doctor: Doctor, data: Path) -> None:
    def spoil(table: pd.DataFrame) -> None:
        table["Effusion"], table["Hernia"] = "0", "0"
        # of a single patient, so that one fold has none
        table.loc[table["PatientID"] == table["PatientID"][0], "Effusion"] = "1"

    edit(data, spoil)
    code, findings, _ = doctor("--labels", "Effusion,Normal,Hernia")
    doubt = marked(findings, "!")
    assert re.search(r"no image of .* is positive for Hernia", doubt)
    (short,) = [text for mark, text in findings if mark == "!" and "not scored there" in text]
    assert re.search(r"Effusion \(fold \d\), Hernia \(any fold\); give fewer --folds, or", short)
    assert re.search(r"no positive in the training part of fold \d, so that it cannot", doubt)
    assert code == 0
    code, findings, _ = doctor("--labels", "Hernia")
    assert code == 1
    assert "no label has a positive" in marked(findings, "✗")


@pytest.mark.parametrize(
    ("change", "code", "mark", "sentence"),
    [
        (lambda t: t.drop(columns="PatientID"), 0, "!", "has no known patient column"),
        (lambda t: t.assign(PatientID=range(ROWS)), 0, "!", "each image has a different patient"),
        (
            lambda t: t.assign(Normal=["large", "0"] * (ROWS // 2)),
            *(1, "✗", "column 'Normal' holds 'large'"),
        ),
        (
            lambda t: t[["ImageID"]].assign(Mass="maybe"),
            *(1, "-", "need a valid --train_csv"),
        ),
    ],
)
def test_a_table_that_is_doubtful_or_wrong(
    doctor: Doctor, data: Path, change: Callable, code: int, mark: str, sentence: str
) -> None:
    edit(data, change)
    exit_code, findings, text = doctor()
    assert exit_code == code
    assert sentence in marked(findings, mark)
    # the readers' sentences point to the doctor: not from here
    assert "python -m core.doctor" not in text


def test_a_check_that_fails_itself_leaves_the_others_alone(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = Mock(side_effect=ZeroDivisionError("of a package"), __name__="check_accelerator")
    monkeypatch.setattr(environment, "check_accelerator", fail)
    code, findings, _ = doctor()
    assert code == 1
    failed = "check_accelerator failed: ZeroDivisionError: of a package"
    assert failed in marked(findings, "✗")
    assert f"{ROWS} images can be read" in marked(findings, "✓")


def test_a_terminal_that_cannot_print_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    find = Findings()
    find.heading("Things")
    find.good("fine")
    find.bad("broken.", "fix it")
    find.attempt(Mock(side_effect=UserError("a sentence")))
    assert find.end() == 1
    out.seek(0)
    lines = ["Things", "  1 ok fine", "  2 NO broken: fix it", "  3 NO a sentence"]
    assert out.read().splitlines() == [*lines, "", "3 checks: 1 ok, 2 NO (see 2, 3)"]


def test_errors_of_a_training_point_to_the_doctor(train: Call, data: Path) -> None:
    flags = (
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--preset", "small"),
        *("--model", "test_efficientnet", "--no-pretrained", "--img_size", 32, "--batch_size", 8),
        *("--folds", 2, "--num_workers", 0, "--out_dir", data / "out"),
    )
    first, second = sorted((data / "images").iterdir())[:2]
    first.write_bytes(b"no image")
    same_flags = "with the same data flags, or --config,"
    for pointer in (f"doctor --full` {same_flags} names all", f"doctor` {same_flags} checks all"):
        code, _, error = train(*flags)
        assert (code, error.count("\n")) == (2, 1)
        assert f"; `python -m core.{pointer}" in error
        second.unlink(missing_ok=True)
    assert "or give their folder by --train_dir; `python" in error
    # a question needs no semicolon
    second.touch()
    edit(data, lambda table: table.assign(Normal=["", "", "0"] * (ROWS // 3)))
    question = "absent (--blank zero) or unknown (--blank unknown)?"
    assert f"{question} `python -m core.doctor` with" in train(*flags)[2]


def test_help_imports_nothing_heavy() -> None:
    """The time itself is measured by `python -m benchmarks startup`."""
    words = "import sys, core.doctor.__main__; print({'torch', 'timm', 'cv2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
