"""A plain CSV: found columns, decoded labels, and refusals that name the place."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.data.tables import LabelTable, read_table
from tests.core.data.conftest import Read, Refuse

NAN = np.nan
HEADER = "ImageID,PatientID,Mass\n"
NIH = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position,Mass,Hernia,
00012.png,Mass,0,00012,57,PA,1,0,
00013.png,Mass|Hernia,1,00012,58,AP,1,1,
00014.png,No Finding,0,00013,81,PA,0,0,
"""
CHEXPERT = """Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Fracture
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,F,68,Frontal,AP,1.0,
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,F,87,Frontal,AP,-1.0,0.0
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,F,83,Lateral,,,1.0
"""


def texts(table: LabelTable, field: str) -> list[str] | None:
    values = getattr(table, field)
    return None if values is None else values.tolist()


@pytest.mark.parametrize(
    ("text", "class_names", "known", "targets", "notes"),
    [
        (
            NIH,
            ("Mass", "Hernia"),
            [["00012", "00012", "00013"], None, ["PA", "AP", "PA"]],
            [[1, 0], [1, 1], [0, 0]],
            [r"found in .*: Mass, Hernia", r"not used: Finding Labels, .*Patient Age\.$"],
        ),
        (
            CHEXPERT,
            ("Edema", "Fracture"),
            [[f"patient0000{n}" for n in (1, 2, 2)], None, ["Frontal", "Frontal", "Lateral"]],
            [[1, NAN], [NAN, 0], [NAN, 1]],
            ["Patients are read from the image paths, such as 'patient00001'"],
        ),
        (
            "image,subject,exam_id,AP/PA,A,Note\n00012,007,s9,LL,1,\nx,08,s8,,-1,\n",
            ("A",),
            [["007", "08"], ["s9", "s8"], ["LL", ""]],
            [[1], [NAN]],
            ["not used: Note", "^Warning: no image of .* is negative for A, so"],
        ),
        (
            "ImageID,\u80ba\u708e\na,1\nb,0\n",
            ("\u80ba\u708e",),
            [None, None, None],
            [[1], [0]],
            ["two folds .* --patient_column"],
        ),
    ],
)
def test_a_table_is_read_as_expected(
    read: Read,
    text: str,
    class_names: tuple[str, ...],
    known: list[list[str] | None],
    targets: list[list[float]],
    notes: list[str],
) -> None:
    table = read(text, blank="unknown")
    assert table.ids == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert table.class_names == class_names
    assert [texts(table, name) for name in ("patients", "studies", "views")] == known
    np.testing.assert_array_equal(table.targets, np.array(targets, np.float32), strict=True)
    for note in notes:
        assert pd.Series(table.notes).str.contains(note).sum() == 1
    alone = read(text, blank="unknown", patient_column="none")
    assert alone.patients is None
    assert not any("--patient_column" in note for note in alone.notes)


@pytest.mark.parametrize(
    ("image", "patient"),
    [
        *(("ImageID", "PatientID"), ("Image Index", "Patient ID"), ("image_id", "patient_id")),
        *((name, "subject_id") for name in ("Image_name", "dicom_id", "Path", "fpath")),
        *(("image", name) for name in ("mrn", "Medical Record Number", "PID", "Subject-ID")),
        *(("image", name) for name in ("Pat. ID", "patient no", "Person_ID", "MEDICAL-RECORD-NO")),
    ],
)
def test_the_names_of_real_files_are_found(read: Read, image: str, patient: str) -> None:
    table = read(f"{patient},study_id,{image},Mass\n1,s9,00012.png,1\n0,s8,x.png,0\n")
    assert table.ids == ["00012.png", "x.png"]
    assert (texts(table, "patients"), texts(table, "studies")) == (["1", "0"], ["s9", "s8"])
    assert table.class_names == ("Mass",)
    taken = f": image '{image}', patient '{patient}', study 'study_id'."
    assert sum(note.endswith(taken) for note in table.notes) == 1


def test_a_warning_names_columns_that_may_be_the_patients(read: Read) -> None:
    header = "ImageID,Age,Case,Ward,Fall,Dose,Own,PatientWeight,Mass\n"
    rows = [
        f"{i}.png,{40 + i // 2},c{i // 2},w{i % 2},F{i // 2},{i // 2}.5,x{i},{i // 2},{i % 2}"
        for i in range(24)
    ]
    (note,) = (note for note in read(header + "\n".join(rows)).notes if "patient column" in note)
    assert note.endswith("Name it with --patient_column (perhaps Case, Fall).")


def test_column_arguments_take_precedence_over_known_names(read: Read) -> None:
    text = "ImageID,film,PatientID,person,visit,angle,Mass\n1,a.png,7,p,v,AP,1\n"
    names = {"image": "film", "patient": "person", "study": "visit", "view": "angle"}
    table = read(text, **{f"{field}_column": name for field, name in names.items()})
    assert table.ids == ["a.png"]
    assert [texts(table, n) for n in ("patients", "studies", "views")] == [["p"], ["v"], ["AP"]]


@pytest.mark.parametrize(
    ("fields", "cells", "targets"),
    [
        ({}, ("-1", "1", "", "0"), [NAN, 1, NAN, 0]),
        ({"uncertain": "zero"}, ("-1", "1", "-1.0"), [0, 1, 0]),
        ({"uncertain": "one"}, ("-1", "1", "-1.0"), [1, 1, 1]),
        ({"blank": "unknown"}, ("", "1", ""), [NAN, 1, NAN]),
        ({"blank": "zero"}, ("", "1", ""), [0, 1, 0]),
    ],
)
def test_uncertain_and_blank_labels(
    read: Read, fields: dict[str, str], cells: tuple[str, ...], targets: list[float]
) -> None:
    rows = (f"{number}.png,{number},{cell}\n" for number, cell in enumerate(cells))
    np.testing.assert_array_equal(read(HEADER + "".join(rows), **fields).targets[:, 0], targets)


ROUNDED = r"column 'PatientID' holds '{}', a rounded .* merges patients.*patient_column none"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        # images and patients
        (f"{HEADER}a.png,1,1\n,2,0\n", r"row 3 \(the header is row 1\) has no image in column '"),
        (f"{HEADER}a,1,1\nb, ,0\n", "row 3 .* has no patient in .*'PatientID'.*_column none"),
        *(
            (f"{HEADER}a,12E5,1\nb,{cell},0\n", r"row 3 \(the header is row 1\), " + found)
            for cell in ("1.90E+38", "2E+38", "1.9e38")
            if (found := ROUNDED.format(cell.replace("+", r"\+").replace(".", r"\.")))
        ),
        *(
            (f"{HEADER}{name},1,1\n", "', which leaves the image folder")
            for name in ("x/../../a.png", "..\\a.png", "..")
        ),
        (
            HEADER + "".join(f"{name}.png,1,1\n{name}.png ,2,0\n" for name in "xabcd"),
            r"5 image\(s\) .*x.png, a.png, b.png and 2 more \(again in row 3",
        ),
        ("film,Mass\na.png,1\n", "it has film, Mass.*--image_column"),
        # labels
        (
            f"{HEADER[:-1]},Edema\na,1,,1\nb,2,1,0\nc,3, ,0\n",
            r"half of the cells are blank in Mass \(67%\)\..*--blank zero.*--blank unknown",
        ),
        *(
            (
                HEADER + "".join(f"a{n},{n},1\n" for n in range(10)) + f"b.png,99,{cell}\n",
                rf"row 12 \(the header is row 1\), column 'Mass' holds '{cell}'.*--labels",
            )
            for cell in ("2", "maybe", "0.5")
        ),
        ("ImageID,PatientID\na.png,1\n", "no label column"),
        ("ImageID,Finding Labels\na,Mass|Hernia\n", "'Finding Labels' has lists of labels"),
        (f"{HEADER}a.png,1,large\n", "no label column.*row 2.*'Mass' holds 'large'"),
        (f"{HEADER}a,1,1\nb,2,1\n", "no label column.*1 for every image.*Mass.*--labels"),
    ],
)
def test_a_table_that_is_refused(refuse: Refuse, text: str, sentence: str) -> None:
    refuse(text, sentence)


TEXT = "ImageID,PatientID,StudyID,Pleural_Thickening\na.png,1,2,1\n"


@pytest.mark.parametrize(
    ("sentence", "fields"),
    [
        ("'Thickning': did you mean 'Pleural_Thickening'", {"labels": ["Thickning"]}),
        ("it has ImageID, PatientID, StudyID, Pleural_Thickening", {"labels": ["xyz"]}),
        ("'PatientID' is the image.* from --labels", {"labels": ["PatientID"]}),
        ("'StudyID' more than once", {"labels": ["StudyID"] * 2, "study_column": "none"}),
        ("--labels is empty", {"labels": []}),
        *(
            (rf"\(--{flag}\): did you mean '{near}'\?", {flag: near.lower()[:-1]})
            for flag, near in (
                ("image_column", "ImageID"),
                ("patient_column", "PatientID"),
                ("study_column", "StudyID"),
                ("view_column", "Pleural_Thickening"),
            )
        ),
    ],
)
def test_a_request_that_cannot_be_met(
    refuse: Refuse, sentence: str, fields: dict[str, Any]
) -> None:
    refuse(TEXT, sentence, **fields)


def test_nih1000_agrees_with_its_csv(real_data: Path) -> None:
    source = real_data / "nih1000"
    truth = pd.read_csv(source / "train.csv")
    table = read_table(source / "train.csv", source / "images")
    assert table.class_names == tuple(truth.columns[2:])
    assert np.array_equal(table.targets, truth.iloc[:, 2:].to_numpy())
    assert table.ids == truth["ImageID"].tolist()
    assert all(Path(path).name == name for path, name in zip(table.paths, table.ids, strict=True))
    assert len(set(texts(table, "patients") or ())) == 682  # by the README of the data
