"""Patients of a CSV without a column of them, from the headers of its DICOM images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.tables import read_table
from core.errors import UserError
from tests.helpers.data.dicom_files import dicom

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


PA: dict[str, Any] = {"StudyInstanceUID": "1.2", "ViewPosition": "PA"}
LL: dict[str, Any] = {"StudyInstanceUID": "1.3", "ViewPosition": "LL"}


def test_each_missing_column_is_filled_on_its_own(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1", **PA}, {"PatientID": "2", **LL}, more=",PatientID")
    table = read_table(csv, tmp_path)
    assert (table.patients is None, table.studies is None, table.views is None) == (False,) * 3
    assert table.patients.tolist() == ["x", "x"]  # type: ignore[union-attr]
    assert table.studies.tolist() == ["1.2", "1.3"]  # type: ignore[union-attr]
    assert table.views.tolist() == ["PA", "LL"]  # type: ignore[union-attr]
    silent = read_table(csv, tmp_path, study_column="none", view_column="none")
    assert silent.studies is None
    assert silent.views is None


def test_views_are_chosen_by_headers_too(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1", **PA}, {"PatientID": "2", **LL}, {"PatientID": "3"})
    table = read_table(csv, tmp_path, views="lateral")
    assert table.ids == ["1.dcm"]
    assert table.paths == [str(tmp_path / "1.dcm")]
    assert table.targets.tolist() == [[1]]
    assert table.patients is not None
    assert table.patients.tolist() == ["2"]
    assert any("1 of 3 images are lateral views" in note for note in table.notes)
    for folder, column in ((None, None), (tmp_path, "none")):
        with pytest.raises(UserError, match=r"DICOM files whose headers tell them.*has neither"):
            read_table(csv, folder, views="lateral", view_column=column)


def test_vindr_is_published_as_dicom(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.dicom").write_bytes(dicom(GREY, PatientID=name * 2, **PA))
    csv = tmp_path / "t.csv"
    csv.write_text("image_id,rad_id,Mass\na,R1,1\nb,R1,0\n")
    table = read_table(csv, tmp_path)
    assert table.patients is not None
    assert table.patients.tolist() == ["aa", "bb"]
    assert not any("patient column" in note for note in table.notes)
    assert read_table(csv, tmp_path, patient_column="none").patients is None
