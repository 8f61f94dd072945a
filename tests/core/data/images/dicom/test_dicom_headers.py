"""Patients, studies and views from DICOM headers, and DICOM files found in a folder."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from core.data.images.decode import read_image
from core.data.images.dicom.header import (
    from_headers,
    is_dicom,
    patients_of,
    read_headers,
)
from core.errors import UserError
from tests.helpers.data.dicom_files import dataset, dicom

GREY = np.arange(96, dtype=np.uint8).reshape(8, 12)


def written(folder: Path, **elements: Any) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.dcm"
    path.write_bytes(dicom(GREY, **elements))
    return str(path)


def test_headers_are_read_in_order(tmp_path: Path) -> None:
    first, second = uid.generate_uid(), uid.generate_uid()
    paths = [
        written(tmp_path, PatientID="00012", StudyInstanceUID=first, ViewPosition="PA"),
        written(tmp_path, PatientID=" 7 ", StudyInstanceUID=second, ViewPosition="LL"),
        written(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientID="Jürgen"),
    ]
    headers = read_headers(paths)
    assert headers["patient"].tolist() == ["00012", "7", "Jürgen"]
    assert headers["study"].tolist() == [str(first), str(second), ""]
    assert headers["view"].tolist() == ["PA", "LL", ""]
    assert read_headers([])["patient"].shape == (0,)


@pytest.mark.parametrize(
    ("description", "view"),
    [
        ("W033 Chest PA", "PA"),
        ("Thorax a.p. AP", "AP"),
        ("Chest lateral (LL), LAT.", "LATERAL"),
        ("Chest PA and Lateral", ""),
        ("Spain apart", ""),
    ],
)
def test_the_series_description_gives_one_view_or_none(
    tmp_path: Path, description: str, view: str
) -> None:
    silent = written(tmp_path, SeriesDescription=description)
    assert read_headers([silent])["view"].tolist() == [view]
    speaking = written(tmp_path, SeriesDescription=description, ViewPosition="RLD")
    assert read_headers([speaking])["view"].tolist() == ["RLD"]


def test_files_that_are_not_dicom_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes(200))
    good = written(tmp_path, PatientID="1")
    with pytest.raises(UserError, match=r"header of .*a\.dcm cannot be read: it is not a DICOM"):
        read_headers([good, str(tmp_path / "a.dcm")])
    with pytest.raises(UserError, match=r"gone\.dcm"):
        read_headers([str(tmp_path / "gone.dcm")])


def test_from_headers_is_suggested_where_all_files_are_dicom(tmp_path: Path) -> None:
    paths = [written(tmp_path, PatientID=name, ViewPosition="PA") for name in ("b", "a", "b")]
    found = from_headers(paths)
    assert (found["patient"].tolist(), found["view"].tolist()) == (["b", "a", "b"], ["PA"] * 3)
    assert found["study"].tolist() == [""] * 3
    patients, note = patients_of(found["patient"], paths)
    assert patients is found["patient"]
    assert note == f"Patients are read from the DICOM headers, such as 'b' in {paths[0]}."
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert from_headers([*paths, str(tmp_path / "a.png")]) == {}
    assert from_headers([]) == {}


def test_patients_that_headers_do_not_name_are_reported(tmp_path: Path) -> None:
    paths = [written(tmp_path, PatientID=""), written(tmp_path)]
    found = from_headers(paths)
    patients, note = patients_of(found["patient"], paths)
    assert patients is None
    assert note.startswith("Warning: neither the CSV nor any DICOM header has a patient")
    with pytest.raises(UserError, match="1 of 2 DICOM headers name no patient"):
        patients_of(np.array(["1", ""], dtype=object), paths)


def test_files_are_dicom_by_content(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(dicom(GREY))
    (tmp_path / "README").write_text("no image")
    assert is_dicom(tmp_path / "c.png")
    assert not any(is_dicom(tmp_path / name) for name in ("README", "gone", "."))


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_MAX_PIXELS", "1000")
    small = dataset(uid.DeflatedExplicitVRLittleEndian, PatientID="1")
    start = 144 + int.from_bytes(small[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(2**21)) + deflater.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(small[:start] + bomb)
    assert path.stat().st_size < 4000
    for attempt in (lambda: read_headers([str(path)]), lambda: read_image(path)):
        with pytest.raises(UserError, match=r"bomb\.dcm.*deflated content comes to more than"):
            attempt()
