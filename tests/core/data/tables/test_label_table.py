"""A CSV says what it says: found columns, decoded labels, and a refusal that names the place."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError

NAN = np.nan


def read(
    folder: Path, text: str | bytes, labels: list[str] | None = None, **options: Any
) -> LabelTable:
    """Write the CSV, make an empty file of each name that ends in .png or .jpg, read the table."""
    data = text.encode() if isinstance(text, str) else text
    (folder / "train.csv").write_bytes(data)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for cell in data.decode("latin-1").replace("\n", ",").split(","):
        name = cell.strip()
        if name.endswith((".png", ".jpg")) and ".." not in name:
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            (images / name).touch()
    return read_table(folder / "train.csv", images, labels, **options)


def refusal(
    folder: Path, text: str | bytes, labels: list[str] | None = None, **options: Any
) -> str:
    with pytest.raises(UserError) as refused:
        read(folder, text, labels, **options)
    return str(refused.value)


NIH = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position,Mass,Hernia,
00012.png,Mass,0,00012,57,PA,1,0,
00013.png,Mass|Hernia,1,00012,58,AP,1,1,
00014.png,No Finding,0,00013,81,PA,0,0,
"""


def test_nih_style(tmp_path: Path) -> None:
    table = read(tmp_path, NIH)
    assert len(table) == 3
    assert table.ids == ["00012.png", "00013.png", "00014.png"]
    assert table.paths == [str(tmp_path / "images" / name) for name in table.ids]
    assert table.patients is not None
    assert table.patients.tolist() == ["00012", "00012", "00013"]
    assert table.views is not None
    assert table.views.tolist() == ["PA", "AP", "PA"]
    assert table.studies is None
    assert table.class_names == ("Mass", "Hernia")
    assert table.targets.dtype == np.float32
    assert table.targets.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert any("Mass, Hernia" in note for note in table.notes)
    assert any(
        "Finding Labels" in note and "Patient Age" in note and "(unnamed)" not in note
        for note in table.notes
    )


CHEXPERT = """Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Fracture
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,F,68,Frontal,AP,1.0,
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,F,87,Frontal,AP,-1.0,0.0
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,F,83,Lateral,,,1.0
"""


def test_chexpert_style_patients_come_from_the_path(tmp_path: Path) -> None:
    table = read(tmp_path, CHEXPERT)
    assert table.patients is not None
    assert table.patients.tolist() == ["patient00001", "patient00002", "patient00002"]
    assert any("paths" in note and "patient00001" in note for note in table.notes)
    assert table.views is not None
    assert table.views.tolist() == ["Frontal", "Frontal", "Lateral"]
    assert np.array_equal(table.targets, [[1, NAN], [NAN, 0], [NAN, 1]], equal_nan=True)
    assert read(tmp_path, CHEXPERT, patient_column="none").patients is None


@pytest.mark.parametrize(
    "image",
    ["ImageID", "Image_name", "Image Index", "image_id", "dicom_id", "Path", "fpath"],
)
@pytest.mark.parametrize("patient", ["PatientID", "Patient ID", "patient_id", "subject_id"])
def test_the_names_of_real_files_are_found(tmp_path: Path, image: str, patient: str) -> None:
    table = read(tmp_path, f"{patient},study_id,{image},Mass\n1,s9,00012.png,1\n0,s8,x.png,0\n")
    assert table.ids == ["00012.png", "x.png"]
    assert table.patients is not None
    assert table.patients.tolist() == ["1", "0"]
    assert table.studies is not None
    assert table.studies.tolist() == ["s9", "s8"]
    assert table.class_names == ("Mass",)


def test_identifiers_without_an_ending_stay_text(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00012.png").touch()
    table = read(tmp_path, "ImageID,PatientID,Mass\n00012,007,1\n")
    assert table.ids == ["00012"]
    assert table.patients is not None
    assert table.patients.tolist() == ["007"]
    assert table.paths == [str(tmp_path / "images" / "00012.png")]


def test_columns_by_argument_go_before_known_names(tmp_path: Path) -> None:
    text = "ImageID,film,PatientID,person,visit,angle,Mass\n1,a.png,7,p,v,AP,1\n"
    table = read(
        tmp_path,
        text,
        image_column="film",
        patient_column="person",
        study_column="visit",
        view_column="angle",
    )
    assert table.ids == ["a.png"]
    for column, cell in ((table.patients, "p"), (table.studies, "v"), (table.views, "AP")):
        assert column is not None
        assert column.tolist() == [cell]


def test_labels_keep_the_order_they_are_asked_for(tmp_path: Path) -> None:
    text = "ImageID,PatientID,A,B,C\na.png,1,1,0,-1\nb.png,2,0,1,1\n"
    table = read(tmp_path, text, ["C", "A"], uncertain="zero")
    assert table.class_names == ("C", "A")
    assert table.targets.tolist() == [[0, 1], [1, 0]]


def test_known_non_labels_are_not_taken_for_labels(tmp_path: Path) -> None:
    others = ["", "StudyDate", "Age", "sex", "View", "Follow-up #", "split", "fold", "Unnamed: 0"]
    header = ",".join(["ImageID", "PatientID", *others, "Mass"])
    text = f"{header}\na.png,1{',0' * 9},1\nb.png,2{',1' * 9},0\n"
    table = read(tmp_path, text)
    assert table.class_names == ("Mass",)
    assert any(all(name in note for name in others if name != "View") for note in table.notes)


def test_a_blank_column_is_no_label(tmp_path: Path) -> None:
    assert read(tmp_path, "ImageID,PatientID,Mass,Note\na.png,1,1,\n").class_names == ("Mass",)


@pytest.mark.parametrize(("uncertain", "meaning"), [("ignore", NAN), ("zero", 0), ("one", 1)])
def test_uncertain_labels(tmp_path: Path, uncertain: str, meaning: float) -> None:
    text = "ImageID,PatientID,Mass\na.png,1,-1\nb.png,2,1\nc.png,3,-1.0\n"
    table = read(tmp_path, text, uncertain=uncertain)
    assert np.array_equal(table.targets[:, 0], [meaning, 1, meaning], equal_nan=True)


@pytest.mark.parametrize(("blank", "meaning"), [(None, NAN), ("unknown", NAN), ("zero", 0)])
def test_blank_labels(tmp_path: Path, blank: str | None, meaning: float) -> None:
    text = "ImageID,PatientID,Mass\na.png,1,\nb.png,2,1\nc.png,3,0\n"
    table = read(tmp_path, text, blank=blank)
    assert np.array_equal(table.targets[:, 0], [meaning, 1, 0], equal_nan=True)


def test_mostly_blank_labels_stop_with_a_question(tmp_path: Path) -> None:
    text = "ImageID,PatientID,Mass,Edema\na.png,1,,1\nb.png,2,1,0\nc.png,3, ,0\n"
    message = refusal(tmp_path, text)
    assert "Mass (67%)" in message
    assert "Edema" not in message
    assert "--blank zero" in message
    assert "--blank unknown" in message
    assert np.isnan(read(tmp_path, text, blank="unknown").targets[0, 0])
    assert read(tmp_path, text, blank="zero").targets[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("cell", ["2", "maybe", "0.5", "1;0"])
def test_a_cell_that_is_no_label_is_refused_with_its_place(tmp_path: Path, cell: str) -> None:
    rows = "".join(f"a{number}.png,{number},1\n" for number in range(10))
    text = f"ImageID,PatientID,Mass\n{rows}b.png,99,{cell}\n"
    for labels in (None, ["Mass"]):
        message = refusal(tmp_path, text, labels)
        assert f"row 12 (the header is row 1), column 'Mass' holds '{cell}'" in message
    assert "--labels" in refusal(tmp_path, text)


def test_a_mostly_other_column_is_left_out_with_a_note(tmp_path: Path) -> None:
    text = "ImageID,PatientID,Mass,Beds\na.png,1,1,1\nb.png,2,0,7\nc.png,3,0,9\n"
    table = read(tmp_path, text)
    assert table.class_names == ("Mass",)
    assert any("not used: Beds" in note for note in table.notes)


def test_a_label_without_a_positive_is_a_warning(tmp_path: Path) -> None:
    table = read(tmp_path, "ImageID,PatientID,Mass,Edema\na.png,1,1,0\nb.png,2,0,-1\n")
    (warning,) = [note for note in table.notes if note.startswith("Warning")]
    assert "positive for Edema," in warning


def test_no_patient_column_is_a_warning_unless_it_is_meant(tmp_path: Path) -> None:
    text = "ImageID,Mass\na.png,1\nb.png,0\n"
    table = read(tmp_path, text)
    assert table.patients is None
    assert any("two folds" in note and "--patient_column" in note for note in table.notes)
    assert not any(
        "--patient_column" in note for note in read(tmp_path, text, patient_column="none").notes
    )


@pytest.mark.parametrize("cell", ["1.90E+38", "1.9e+38", "2E+38", "1.9e38"])
def test_rounded_patient_numbers_are_refused(tmp_path: Path, cell: str) -> None:
    text = f"ImageID,PatientID,Mass\na.png,12E5,1\nb.png,{cell},0\n"
    message = refusal(tmp_path, text)
    assert f"row 3 (the header is row 1), column 'PatientID' holds '{cell}'" in message
    assert "merges many patients" in message
    assert "--patient_column none" in message
    table = read(tmp_path, text, patient_column="none")
    assert table.patients is None
    assert table.class_names == ("Mass",)


def test_a_blank_patient_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "ImageID,PatientID,Mass\na.png,1,1\nb.png, ,0\n")
    assert "row 3 (the header is row 1) names no patient in column 'PatientID'" in message
    assert "--patient_column none" in message


def test_a_blank_image_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "ImageID,PatientID,Mass\na.png,1,1\n,2,0\n")
    assert "row 3 (the header is row 1) names no image in column 'ImageID'" in message


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "..\\a.png", ".."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").touch()
    message = refusal(tmp_path, f"ImageID,PatientID,Mass\n{name},1,1\n")
    assert f"'{name}', which leaves the image folder" in message


def test_repeated_images_come_in_one_message(tmp_path: Path) -> None:
    rows = "".join(f"{name}.png,1,1\n{name}.png ,2,0\n" for name in "abcde")
    message = refusal(tmp_path, f"ImageID,PatientID,Mass\nx.png,1,1\n{rows}")
    assert "5 image(s)" in message
    assert "a.png, b.png, c.png and 2 more" in message


def test_missing_files_come_in_one_message(tmp_path: Path) -> None:
    message = refusal(tmp_path, "ImageID,PatientID,Mass\na.png,1,1\nb,2,1\nc,3,0\n")
    assert "2 of 3 images have no file" in message
    assert "b, c" in message


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = "ImageID,PatientID,StudyID,Pleural_Thickening\na.png,1,2,1\n"
    message = refusal(tmp_path, text, ["Pleural Thickning"])
    assert "'Pleural Thickning': did you mean 'Pleural_Thickening'?" in message
    for flag, near in (
        ("image_column", "ImageID"),
        ("patient_column", "PatientID"),
        ("study_column", "StudyID"),
        ("view_column", "Pleural_Thickening"),
    ):
        message = refusal(tmp_path, text, None, **{flag: near.lower()[:-1]})
        assert f"(--{flag}): did you mean '{near}'?" in message
    assert "it has ImageID, PatientID, StudyID, Pleural_Thickening" in refusal(
        tmp_path, text, ["xyz"]
    )


@pytest.mark.parametrize("name", ["ImageID", "PatientID"])
def test_an_identifier_is_no_label(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, "ImageID,PatientID,Mass\n1.png,1,1\n", ["Mass", name])
    assert f"'{name}'" in message
    assert "--labels" in message


def test_labels_asked_for_twice_or_not_at_all(tmp_path: Path) -> None:
    assert "'Mass' more than once" in refusal(tmp_path, NIH, ["Mass", "Hernia", "Mass"])
    assert "--labels is empty" in refusal(tmp_path, NIH, [])


def test_no_image_column(tmp_path: Path) -> None:
    message = refusal(tmp_path, "film,Mass\na.png,1\n")
    assert "--image_column" in message
    assert "film, Mass" in message


def test_no_label_column(tmp_path: Path) -> None:
    assert "no label column" in refusal(tmp_path, "ImageID,PatientID\na.png,1\n")
    message = refusal(tmp_path, "ImageID,Finding Labels\na.png,Mass|Hernia\n")
    assert "'Finding Labels' lists several in a cell" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(NIH)
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_table(tmp_path / "train.csv", tmp_path / "nowhere")


def test_nih1000_agrees_with_its_csv(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "nih1000"
    truth = pd.read_csv(source / "train.csv")
    table = read_table(source / "train.csv", source / "images")
    assert table.class_names == tuple(truth.columns[2:])
    assert np.array_equal(table.targets, truth.iloc[:, 2:].to_numpy())
    assert table.ids == truth["ImageID"].tolist()
    assert all(Path(path).name == name for path, name in zip(table.paths, table.ids, strict=True))
    assert table.patients is not None
    assert len(set(table.patients)) == 682  # by the README of the data


def test_labels_in_any_script_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    lines = [
        "ImageID,PatientID,\u80ba\u708e,\u041e\u0442\u0451\u043a",
        "a.png,1,1,0",
        "b.png,2,0,1",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    table = read_table(tmp_path / "t.csv", tmp_path)
    assert table.class_names == ("\u80ba\u708e", "\u041e\u0442\u0451\u043a")


def test_a_column_of_words_for_labels_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "t.csv").write_text("ImageID,PatientID,Mass\na.png,1,large\n")
    with pytest.raises(UserError, match=r"no label column.*row 2.*'Mass' holds 'large'"):
        read_table(tmp_path / "t.csv", tmp_path)
