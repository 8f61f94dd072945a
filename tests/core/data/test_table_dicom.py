"""Patients of a CSV without a column of them, from the headers of its DICOM images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom

from core.data.table import read_table
from core.errors import UserError

GREY = np.zeros((8, 8), np.uint8)


def images(folder: Path, *headers: dict[str, Any], more: str = "") -> Path:
    """A folder of DICOM images with these headers, and a CSV that names them."""
    for number, header in enumerate(headers):
        (folder / f"{number}.dcm").write_bytes(dicom(GREY, **header))
    rows = [f"{number}.dcm,{number % 2}{more and ',x'}" for number in range(len(headers))]
    (folder / "t.csv").write_text("\n".join([f"ImageID,Mass{more}", *rows]))
    return folder / "t.csv"


def test_the_headers_tell_what_the_csv_does_not(tmp_path: Path) -> None:
    header = {"StudyInstanceUID": "1.2.3", "ViewPosition": "PA"}
    csv = images(tmp_path, {"PatientID": "007", **header}, {"PatientID": "7", **header})
    table = read_table(csv, tmp_path)
    assert table.patients is not None
    assert table.studies is not None
    assert table.views is not None
    assert table.patients.tolist() == ["007", "7"]
    assert table.studies.tolist() == ["1.2.3"] * 2
    assert table.views.tolist() == ["PA", "PA"]
    assert any("taken from the DICOM headers" in note for note in table.notes)
    assert read_table(csv, tmp_path, patient_column="none").patients is None


def test_a_column_goes_over_the_headers(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1"}, {"PatientID": "2"}, more=",PatientID")
    table = read_table(csv, tmp_path)
    assert table.patients is not None
    assert table.patients.tolist() == ["x", "x"]


def test_headers_of_which_some_are_silent(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1"}, {})
    with pytest.raises(UserError, match="1 of 2 DICOM headers name no patient"):
        read_table(csv, tmp_path)
