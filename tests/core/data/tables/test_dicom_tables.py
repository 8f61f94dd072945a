"""Patients of a CSV without a column of them, from the headers of its DICOM images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError
from tests.helpers.data.dicom_files import dicom

GREY = np.zeros((8, 8), np.uint8)
PA: dict[str, Any] = {"StudyInstanceUID": "1.2", "ViewPosition": "PA"}
LL: dict[str, Any] = {"StudyInstanceUID": "1.3", "ViewPosition": "LL"}


def images(folder: Path, *headers: dict[str, Any], more: str = "") -> Path:
    """A folder of DICOM images with these headers, and a CSV that names them."""
    for number, header in enumerate(headers):
        (folder / f"{number}.dcm").write_bytes(dicom(GREY, **header))
    rows = [f"{number}.dcm,{number % 2}{more and ',x'}" for number in range(len(headers))]
    (folder / "t.csv").write_text("\n".join([f"ImageID,Mass{more}", *rows]))
    return folder / "t.csv"


def known(table: LabelTable) -> list[list[str] | None]:
    """Patients, studies and views."""
    every = (table.patients, table.studies, table.views)
    return [None if values is None else values.tolist() for values in every]


def test_the_headers_complete_the_csv(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "007", **PA}, {"PatientID": "7", **LL})
    table = read_table(csv, tmp_path)
    assert known(table) == [["007", "7"], ["1.2", "1.3"], ["PA", "LL"]]
    assert any("read from the DICOM headers" in note for note in table.notes)
    none = {f"{field}_column": "none" for field in ("patient", "study", "view")}
    assert known(read_table(csv, tmp_path, None, None, **none)) == [None] * 3


def test_a_column_takes_precedence_over_the_headers(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1", **PA}, {"PatientID": "2", **LL}, more=",PatientID")
    assert known(read_table(csv, tmp_path)) == [["x", "x"], ["1.2", "1.3"], ["PA", "LL"]]


def test_headers_of_which_some_are_empty(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1"}, {})
    with pytest.raises(UserError, match="1 of 2 DICOM headers name no patient"):
        read_table(csv, tmp_path)


def test_views_are_chosen_by_headers_too(tmp_path: Path) -> None:
    csv = images(tmp_path, {"PatientID": "1", **PA}, {"PatientID": "2", **LL}, {"PatientID": "3"})
    table = read_table(csv, tmp_path, views="lateral")
    assert (table.ids, table.paths) == (["1.dcm"], [str(tmp_path / "1.dcm")])
    assert table.targets.tolist() == [[1]]
    assert known(table)[0] == ["2"]
    assert any("1 of 3 images are lateral views" in note for note in table.notes)
    for folder, column in ((None, None), (tmp_path, "none")):
        with pytest.raises(UserError, match=r"has no view column.*DICOM headers"):
            read_table(csv, folder, views="lateral", view_column=column)
