"""A known dataset's table is recognised by its columns, and a plain CSV never is."""

from pathlib import Path

import numpy as np
import pytest

from core.data.csv.columns import read_columns
from core.data.sources import SOURCES, read_sheet, recognise
from core.data.tables import LabelReading, read_table
from core.errors import UserError

HERE = Path(__file__).parent
TABLES = {
    "nih/Data_Entry_2017_v2020.csv": "nih",
    "chexpert/train.csv": "chexpert",
    "mimic/mimic-cxr-2.0.0-chexpert.csv": "mimic",
    "cxr_lt/labels.csv": "cxr_lt",
    "padchest/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": "padchest",
    "padchest/cxr_lt_2026_train.csv": "padchest",
    "vindr/image_labels_train.csv": "vindr",
    "vindr/image_labels_test.csv": "vindr",
}
PLAIN = [
    "ImageID,PatientID,Mass,No_Finding",
    "ImageID,PatientID,StudyID,Projection,normal,nodule",
    "Image Index,Finding Labels,Patient ID,View Position,Mass",
    "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Fracture",
    "study_id,subject_id,No Finding,Edema",
    "dicom_id,subject_id,study_id,ViewPosition,No Finding",
    "image_id,patient_id,Aortic enlargement,No finding",
    "ImageID,PatientID,RadID,Mass",
    "ImageID,PatientID,StudyDate_DICOM,Projection,Labels,Mass",
]


def write(folder: Path, header: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n")
    return path


@pytest.mark.parametrize(("name", "source"), TABLES.items())
def test_a_known_table_is_recognised_and_told_of(name: str, source: str) -> None:
    path = HERE / name
    assert recognise(path, read_columns(path)) == source
    first = read_sheet(path).notes[0]
    assert first.startswith(f"{path} is read as {SOURCES[source].table}")
    assert "--source plain" in first
    # who says what it is need not be told
    assert not any(
        "is read as" in note for note in read_sheet(path, LabelReading(source=(source,))).notes
    )


@pytest.mark.parametrize("header", PLAIN)
def test_a_plain_table_stays_as_it_is(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header)
    sheet = read_sheet(path)
    assert list(sheet.columns) == header.split(",")
    assert sheet.notes == ()
    assert sheet.labels is None


def test_a_plain_table_beside_those_of_mimic_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").touch()
    path = write(tmp_path, "image,subject_id,study_id,No Finding", "mimic-cxr-own.csv")
    assert recognise(path, read_columns(path)) == "plain"
    path = write(tmp_path, "subject_id,study_id,No Finding", "own.csv")
    assert recognise(path, read_columns(path)) == "mimic"


def test_real_plain_tables_stay_as_they_are(real_data: Path) -> None:
    files = ["nih1000/train.csv", "nih1000/meta.csv", "nih64/meta.csv"]
    for path in (*(real_data / name for name in files), *(real_data / "labels").iterdir()):
        assert recognise(path, read_columns(path)) == "plain"


def test_any_table_can_be_read_as_it_is() -> None:
    path = HERE / "vindr/image_labels_test.csv"
    table = read_table(path, None, source="plain")
    assert table.id_column == "image_id"
    assert any("--patient_column" in note for note in table.notes)


def test_an_unknown_source_is_refused_with_the_nearest() -> None:
    path = HERE / "chexpert/train.csv"
    with pytest.raises(UserError, match=r"no --source 'chexprt': did you mean 'chexpert'\?"):
        read_sheet(path, LabelReading(source=("chexprt",)))
    with pytest.raises(UserError, match=r"it has nih, chexpert, mimic, .*, vindr, plain"):
        read_sheet(path, LabelReading(source=("hospital",)))


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_the_columns_are_not_of_is_refused(tmp_path: Path, source: str) -> None:
    path = write(tmp_path, "film,Mass")
    with pytest.raises(UserError, match=rf"has no column '.*', which --source {source} needs"):
        read_table(path, None, source=source)


def test_images_are_left_out_before_files_are_looked_for(tmp_path: Path) -> None:
    path = HERE / "cxr_lt/labels.csv"
    wanted = ["00000005-aaaa1111-bbbb2222-cccc3333-dddd4444"]
    wanted += [wanted[0].replace("5-", f"{last}-", 1) for last in (7,)]
    wanted += ["00000010-aaaa1111-bbbb2222-cccc3333-dddd4444"]
    for name in wanted:
        (tmp_path / f"{name}.jpg").touch()
    table = read_table(path, tmp_path, views="frontal", official_split="train")
    assert table.ids == wanted
    assert table.paths == [str(tmp_path / f"{name}.jpg") for name in wanted]
    with pytest.raises(UserError, match="1 of 4 images have no file"):
        read_table(path, tmp_path, official_split="train")


def test_a_table_without_views_and_views_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,PatientID,View,Mass\na,1,PA,1\nb,2,AP,0\nc,3,,0\nd,4,PA,0\n")
    with pytest.raises(UserError, match=r"leaves none of the 4 images.*PA 2, AP 1, \(blank\) 1"):
        read_table(path, None, views="lateral")
    table = read_table(path, None, views="frontal")
    assert table.ids == ["a", "b", "d"]
    assert any("3 of 4 images are frontal views" in note for note in table.notes)
    with pytest.raises(UserError, match=r"needs a column of views.*--view_column"):
        read_table(path, None, views="frontal", view_column="none")


def test_a_place_in_the_file_stays_right_after_rows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,PatientID,View,Mass\na,1,PA,1\nb,2,L,small\nc,3,PA,0\nd, ,PA,large\n")
    with pytest.raises(
        UserError, match=r"row 5 \(the header is row 1\), column 'Mass' holds 'large'"
    ):
        read_table(path, None, ["Mass"], views="frontal")
    with pytest.raises(
        UserError, match=r"row 3 \(the header is row 1\), column 'Mass' holds 'small'"
    ):
        read_table(path, None, ["Mass"], views="lateral")


def test_a_plain_table_names_no_official_test() -> None:
    path = HERE / "padchest/cxr_lt_2026_train.csv"
    assert len(read_table(path, None, official_split="train")) == 6
    with pytest.raises(UserError, match="names no official test images: pass --official_split all"):
        read_table(path, None, official_split="test")


def test_cxr_lt_2026_is_read_column_by_column() -> None:
    table = read_table(HERE / "padchest/cxr_lt_2026_train.csv", None)
    assert table.class_names == ("Normal", "cardiomegaly", "pleural effusion")
    assert np.array_equal(table.targets[1], [0, 1, 1])
    assert table.patients is not None
    assert table.patients.tolist() == ["10000001"] * 2 + ["10000002", "10000003"] + ["10000004"] * 2
