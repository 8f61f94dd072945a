"""Doctor: leaks between two CSVs, by name, bytes and appearance."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.helpers.doctor import ROWS, Doctor, data, doctor, edit, marked, sound_machine

__all__ = ["data", "doctor", "sound_machine"]


def part(data: Path, rows: slice, name: str) -> pd.DataFrame:
    """Write some of the rows of train.csv to another CSV."""
    table = pd.read_csv(data / "train.csv", dtype=str)[rows]
    table.to_csv(data / name, index=False)
    return table


def test_images_of_val_in_train(doctor: Doctor, data: Path) -> None:
    part(data, slice(20, None), "val.csv")
    code, findings, _ = doctor("--val_csv", data / "val.csv")
    assert code == 1
    assert f"{ROWS - 20} image(s) of --val_csv are in --train_csv too" in marked(findings, "✗")


def test_the_test_is_compared_with_train_and_val(doctor: Doctor, data: Path) -> None:
    whole = pd.read_csv(data / "train.csv", dtype=str)
    whole["PatientID"] = [f"p{row // 2}" for row in range(ROWS)]
    whole.to_csv(data / "train.csv", index=False)
    images, names = data / "images", whole["ImageID"]
    part(data, slice(20, 28), "val.csv")
    test = part(data, slice(26, 30), "test.csv")
    part(data, slice(20), "train.csv")
    flags = ("--val_csv", data / "val.csv", "--test_csv", data / "test.csv")
    code, findings, _ = doctor(*flags)
    assert code == 1
    bad = marked(findings, "✗")
    assert f"2 images of the test found in --val_csv: {names[26]}, {names[27]}" in bad
    assert "1 patient of the test found in --val_csv: p13" in bad
    assert "in --train_csv" not in bad
    assert "no patient of the test is in --train_csv" in marked(findings, "✓")

    # copies under other names: of val in the test, and in the test twice
    for source, copy in ((22, "copy.png"), (29, "again.png")):
        shutil.copy(images / names[source], images / copy)
    more = [test[:1].assign(ImageID=name, PatientID="new") for name in ("copy.png", "again.png")]
    pd.concat([test, *more]).to_csv(data / "test.csv", index=False)
    code, findings, _ = doctor(*flags)
    assert f"copy.png = {names[22]}" in marked(findings, "✗")
    assert f"in the test: again.png = {names[29]}" in marked(findings, "!")
    assert "no image of the test equals" not in marked(findings, "✓")


def test_full_finds_near_duplicates_of_other_patients(doctor: Doctor, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    source = data / "images" / table["ImageID"][5]
    pixels = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    again = 30 + 0.7 * cv2.resize(np.asarray(pixels), (70, 70))
    cv2.imwrite(str(data / "images" / "again.jpg"), again)
    pair = f"{source.name} ~ again.jpg"
    for patient in ("stranger", table["PatientID"][5]):
        row = table[5:6].assign(ImageID="again.jpg", PatientID=patient)
        pd.concat([table, row]).to_csv(data / "train.csv", index=False)
        code, findings, _ = doctor("--full")
        doubt = marked(findings, "!")
        assert code == 0
        assert (pair in doubt) == (patient == "stranger")
        looks = "1 image looks nearly the same as another one of a different patient"
        assert (looks in doubt) == (patient == "stranger")


def test_several_columns_for_one_csv_are_refused(doctor: Doctor, data: Path) -> None:
    code, _, error = doctor("--test_csv", data / "train.csv", "--patient_column", "A", "B")
    assert code == 2
    assert "--patient_column has 2 values and --train_csv 1" in error


@pytest.mark.parametrize("has_column", [True, False])
def test_without_patients_no_comparison_of_patients_is_reported(
    doctor: Doctor, data: Path, has_column: bool
) -> None:
    part(data, slice(20, 30), "test.csv")
    part(data, slice(20), "train.csv")
    if not has_column:
        edit(data, lambda table: table.drop(columns="PatientID"))
    request = ("--patient_column", "none") if has_column else ()
    code, findings, _ = doctor("--test_csv", data / "test.csv", *request)
    assert code == 0
    assert "no image of the test equals another one" in marked(findings, "✓")
    unknown = "whether a patient of the test is in --train_csv is unknown: no patient column"
    assert ("patients of the test in --train_csv: they are" in marked(findings, "-")) == has_column
    assert (unknown in marked(findings, "!")) != has_column
    assert "no patient" not in marked(findings, "✓")
