"""The doctor finds what is in two CSVs, by name, by bytes, and by its looks."""

import shutil
from pathlib import Path

import cv2
import pandas as pd

from tests.helpers.doctor_checks import ROWS, Doctor, data, doctor, edit, sound_machine
from tests.helpers.doctor_output import marked

__all__ = ["data", "doctor", "sound_machine"]


def test_leaks_between_the_csvs(doctor: Doctor, data: Path) -> None:
    edit(data, lambda table: table[20:], "val.csv")
    code, findings, _ = doctor("--val_csv", data / "val.csv")
    assert code == 1
    assert f"{ROWS - 20} image(s) of --val_csv are in --train_csv too" in marked(findings, "✗")

    edit(data, lambda table: table[20:].assign(ImageID=lambda t: "sub/" + t["ImageID"]), "val.csv")
    people = pd.read_csv(data / "train.csv", dtype=str)["PatientID"]
    apart = sorted(set(people))[-3:]
    test, train = people.isin(apart), ~people.isin(apart)
    edit(data, lambda table: table[test], "test.csv")
    edit(data, lambda table: table[train])
    code, findings, _ = doctor("--test_csv", data / "test.csv")
    assert code == 0
    assert "no image and no patient of the test is in --train_csv" in marked(findings, "✓")

    # a copy under another name, of a patient that is in training under the same one
    table = pd.read_csv(data / "train.csv", dtype=str)[:1]
    shutil.copy(data / "images" / table["ImageID"][0], data / "images" / "copy.png")
    table.assign(ImageID="copy.png").to_csv(data / "test.csv", index=False)
    code, findings, _ = doctor("--test_csv", data / "test.csv")
    assert code == 1
    bad = marked(findings, "✗")
    assert f"1 patient of --test_csv can be found in --train_csv: {table['PatientID'][0]}" in bad
    assert f"under another name: copy.png = {table['ImageID'][0]}" in bad


def test_full_finds_what_looks_the_same_and_is_another_patients(doctor: Doctor, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    source = data / "images" / table["ImageID"][5]
    pixels = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    cv2.imwrite(str(data / "images" / "again.jpg"), 30 + 0.7 * cv2.resize(pixels, (70, 70)))
    row = table[5:6].assign(ImageID="again.jpg", PatientID="stranger")
    pd.concat([table, row]).to_csv(data / "train.csv", index=False)
    code, findings, _ = doctor("--full")
    assert code == 0
    assert f"{source.name} ~ again.jpg" in marked(findings, "!")
    assert "1 image looks nearly the same as another one of a different patient" in (
        marked(findings, "!")
    )
    # byte by byte they are no copies
    assert "no image is there under two names" in marked(findings, "✓")
    # and without the stranger there is none
    row.assign(PatientID=table["PatientID"][5])
    pd.concat([table, row.assign(PatientID=table["PatientID"][5])]).to_csv(
        data / "train.csv", index=False
    )
    assert f"{source.name} ~ again.jpg" not in marked(doctor("--full")[1], "!")


def part(data: Path, rows: slice, name: str) -> pd.DataFrame:
    """Write some of the rows of train.csv to another CSV."""
    table = pd.read_csv(data / "train.csv", dtype=str)[rows]
    table.to_csv(data / name, index=False)
    return table


def test_the_test_is_compared_with_val_csv_too(doctor: Doctor, data: Path) -> None:
    whole = pd.read_csv(data / "train.csv", dtype=str)
    whole["PatientID"] = [f"p{row // 2}" for row in range(ROWS)]
    images = data / "images"
    whole.to_csv(data / "train.csv", index=False)
    part(data, slice(20, 28), "val.csv")
    test = part(data, slice(26, 30), "test.csv")
    shutil.copy(images / whole["ImageID"][22], images / "copy.png")
    shutil.copy(images / whole["ImageID"][29], images / "again.png")
    more = [test[:1].assign(ImageID=name, PatientID="new") for name in ("copy.png", "again.png")]
    pd.concat([test, *more]).to_csv(data / "test.csv", index=False)
    part(data, slice(20), "train.csv")
    flags = ("--val_csv", data / "val.csv", "--test_csv", data / "test.csv")
    code, findings, _ = doctor(*flags)
    bad = marked(findings, "✗")
    assert code == 1
    two = ", ".join(whole["ImageID"][26:28])
    assert f"2 images of the test can be found in --val_csv: {two}" in bad
    assert "1 patient of --test_csv can be found in --val_csv: p13" in bad
    assert (
        "1 image of the test can be found in --val_csv under another name: "
        f"copy.png = {whole['ImageID'][22]}"
    ) in bad
    assert (
        "1 image of the test can be found there under two names: "
        f"again.png = {whole['ImageID'][29]}"
    ) in marked(findings, "!")
    assert "no image is there under two names" not in marked(findings, "✓")
    assert "no image and no patient of the test is in --train_csv" in marked(findings, "✓")

    # a copy between train and val does not hide those of the test
    shutil.copy(images / whole["ImageID"][3], images / "hidden.png")
    val = pd.read_csv(data / "val.csv", dtype=str)
    val.loc[0, "ImageID"] = "hidden.png"
    val.to_csv(data / "val.csv", index=False)
    bad = marked(doctor(*flags)[1], "✗")
    assert f"under another name: hidden.png = {whole['ImageID'][3]}" in bad
    assert f"under another name: copy.png = {whole['ImageID'][22]}" in bad


def test_without_patients_none_are_said_to_be_compared(doctor: Doctor, data: Path) -> None:
    part(data, slice(20, 30), "test.csv")
    part(data, slice(20), "train.csv")
    # asked for, it is no doubt
    code, findings, _ = doctor("--test_csv", data / "test.csv", "--patient_column", "none")
    assert code == 0
    assert "patient" not in marked(findings, "!")
    assert "no patient" not in marked(findings, "✓")
    edit(data, lambda table: table.drop(columns="PatientID"))
    findings = doctor("--test_csv", data / "test.csv")[1]
    assert "no patient" not in marked(findings, "✓")
    assert "no image of the test is in --train_csv (patients are not compared" in (
        marked(findings, "✓")
    )
    # told once
    assert marked(findings, "!").count("inflate") == 1
