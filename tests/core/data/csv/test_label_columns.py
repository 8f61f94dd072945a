"""Which columns become labels: none is lost without a word, and no header column is one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict

from core.config.data import DataConfig
from core.data.csv import columns
from core.data.csv.columns import is_known_non_label, read_columns
from core.data.sources.nih import LABELS as NIH_LABELS
from core.data.sources.sheet import CHEXPERT_LABELS
from core.data.tables import LabelTable, read_table
from core.data.tables.label_map import OURS
from core.data.tables.load import gather
from core.errors import UserError

NAN = np.nan


def read(
    folder: Path, others: dict[str, Sequence[str]], labels: list[str] | None = None
) -> LabelTable:
    """A table of these columns beside the label Effusion, 0, 1, 0, ..."""
    path, rows = folder / "t.csv", len(next(iter(others.values())))
    given = {"ImageID": [f"{row}.png" for row in range(rows)], "PatientID": range(rows)}
    effusion = {"Effusion": [str(row % 2) for row in range(rows)]}
    pd.DataFrame(given | effusion | others).to_csv(path, index=False)
    return read_table(path, None, labels, blank="unknown", source="plain")


@pytest.mark.parametrize(
    ("cells", "targets"),
    [
        (["NA", "0", "NA", "1"], [NAN, 0, NAN, 1]),
        (["1.00", "0.00", "0.00", "1.00"], [1, 0, 0, 1]),
        (["True", "False", "False", "True"], [1, 0, 0, 1]),
        (["TRUE", "FALSE", "NA", "TRUE"], [1, 0, NAN, 1]),
        (["yes", "No", "YES", "no"], [1, 0, 1, 0]),
        (["+1", "0", "-1", "1e0"], [1, 0, NAN, 1]),
        (["1.0", "NULL", "<NA>", "0e0"], [1, NAN, NAN, 0]),
        (["None", "nan", "0", "1.000"], [NAN, NAN, 0, 1]),
    ],
)
def test_a_label_in_any_notation_is_found(
    tmp_path: Path, cells: list[str], targets: list[float]
) -> None:
    table = read(tmp_path, {"Mass": cells})
    assert table.class_names == ("Effusion", "Mass")
    np.testing.assert_array_equal(table.targets[:, 1], np.array(targets, dtype=np.float32))
    blank = any("count as blank: " in note for note in table.notes)
    assert blank == any(cell.casefold() in ("na", "null", "<na>", "none", "nan") for cell in cells)


@pytest.mark.parametrize(
    ("cells", "row", "value"),
    [
        (["1", "0", "0", "small"], 5, "small"),
        (["1", "present", "0", "absent"], 3, "present"),
        (["1", "NA", "NA", "2"], 5, "2"),
        (["yes", "no", "unclear", "no"], 4, "unclear"),
        (["0", "1", "2", "3"], 4, "2"),
        (["Y", "N", "N", ""], 2, "Y"),
        (["t", "f", "f", "t"], 2, "t"),
        (["", "Positive", "Negative", ""], 3, "Positive"),
        (["WAHR", "FALSCH", "FALSCH", ""], 2, "WAHR"),
        (["0.9", "0.05", "0.2", "0.7"], 2, "0.9"),
        (["1", "0", "0.5", "0"], 4, "0.5"),
        (["", "Positive", "", "Positive"], 3, "Positive"),
        (["Y", "N", "U", "N"], 2, "Y"),
        (["positive", "negative", "uncertain", ""], 2, "positive"),
        (["x", "", "", "x"], 2, "x"),
        ([".TRUE.", ".FALSE.", ".FALSE.", ""], 2, ".TRUE."),
        (["0.9", "NA", "1e-3", ""], 2, "0.9"),
    ],
)
def test_a_column_that_looks_like_a_label_stops_with_its_cell(
    tmp_path: Path, cells: list[str], row: int, value: str
) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, {"Mass": cells})
    message = str(refused.value)
    assert f"row {row} (the header is row 1), column 'Mass' holds '{value}'" in message
    assert "name those that are with --labels" in message
    assert ("probabilities are not supported yet" in message) == (0 < _number(value) < 1)
    assert read(tmp_path, {"Mass": cells}, ["Effusion"]).class_names == ("Effusion",)


def _number(value: str) -> float:
    return float(pd.to_numeric(value, errors="coerce"))


@pytest.mark.parametrize(
    "cells",
    [
        ["0", "71", "1", "58", "66"],
        ["0.143", "0.143", "0.143", "0.143", "0.143"],
        ["", "NA", "nan", "None", ""],
        ["2.5", "0.5", "0.1", "0.2", "1"],
        ["F", "M", "F", "F", ""],
        ["PA", "AP", "1", "PA", "L"],
        ["-1", "-1", "-1", "1 20 3 40", "-1"],
    ],
)
def test_other_columns_stay_out_with_a_note(tmp_path: Path, cells: list[str]) -> None:
    table = read(tmp_path, {"Other": cells})
    assert table.class_names == ("Effusion",)
    assert any(note.endswith("not used: Other.") for note in table.notes)


def test_a_rare_cell_of_many_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 3001 .*'Mass' holds 'x'"):
        read(tmp_path, {"Mass": [*["1", "0", "1.0", ""] * 749, "0", "1", "0", "x"][:3000]})
    texts = read(tmp_path, {"Note": [f"{row}.5" for row in range(3000)]})
    assert texts.class_names == ("Effusion",)


@pytest.mark.parametrize("cell", ["1", "1.0", "True", "yes"])
def test_a_column_of_ones_is_a_label_by_request_alone(tmp_path: Path, cell: str) -> None:
    table = read(tmp_path, {"Quality": [cell] * 4})
    assert table.class_names == ("Effusion",)
    (note,) = [note for note in table.notes if note.startswith("Warning")]
    assert "1 for every image" in note
    assert "Quality" in note
    assert "--labels" in note
    table = read(tmp_path, {"Quality": [cell] * 4}, ["Quality"])
    assert table.targets.tolist() == [[1]] * 4
    (note,) = [note for note in table.notes if note.startswith("Warning")]
    assert "no image of" in note
    assert "negative for Quality" in note
    # beside a blank a 1 is a label: nobody knows the other images
    assert read(tmp_path, {"Quality": [cell, "", cell, cell]}).class_names[1:] == ("Quality",)


def test_a_table_of_ones_alone_is_refused_with_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,PatientID,Mass\na,1,1\nb,2,1\n")
    with pytest.raises(UserError, match=r"no label column.*1 for every image.*Mass.*--labels"):
        read_table(path, None)


def test_a_label_of_one_csv_that_is_1_in_all_of_another(tmp_path: Path) -> None:
    rows = {"sick": "a,1,1,0\nb,2,1,1\n", "other": "c,1,0,1\nd,2,1,0\n"}
    for name, cells in rows.items():
        (tmp_path / f"{name}.csv").write_text(f"ImageID,PatientID,TB,Mass\n{cells}")
    table = gather(
        DataConfig(train_csv=(tmp_path / "sick.csv", tmp_path / "other.csv")), images=False
    )
    named = {name: table.targets[:, place] for place, name in enumerate(table.class_names)}
    assert named["TB"].tolist() == [1, 1, 0, 1]
    assert named["Mass"].tolist() == [0, 1, 1, 0]


# what may be all 1, or 1 and 0, in tables that are made of DICOM headers and of file lists
HEADERS = [
    *("InstanceNumber", "SamplesPerPixel", "SeriesNumber", "AcquisitionNumber", "HighBit"),
    *("PixelRepresentation", "PlanarConfiguration", "BitsStored", "RescaleIntercept"),
    *("RescaleSlope", "BurnedInAnnotation", "LossyImageCompression", "NumberOfFrames"),
    *("PixelRepresentation_DICOM", "Instance Number", "samples_per_pixel", "QualityControlImage"),
    *("Follow-up", "Follow-up #", "FollowUp", "follow_up_number", "View", "ViewPosition", "Index"),
    *("Fold", "fold_id", "cv_fold", "kfold", "fold0", "Sex", "PatientSex", "sex_code", "Gender"),
    *("Male", "is_female", "Unnamed: 0", "Unnamed: 0_level_0", "index", "level_0", "Laterality"),
    *("Projection", "Frontal", "AP", "visit", "visit_no", "split", "is_test", "Age", "age_group"),
    *("validation_fold", "kfolds", "gender_male", "View_AP", "No.", "series_no", "Index 1"),
    *("InstanceNumber_x", "SamplesPerPixel_y", "WindowWidth.1", "PixelSpacing_0", "sex_at_birth"),
    *(
        "dicom_SeriesNumber",
        "dcm.SeriesNumber",
        "DICOM: Instance Number",
        "(0020,0013)",
        "00280002",
    ),
    *("Gender_M", "Patient Gender_M", "sex_encoded", "sex_binary", "M/F", "is_PA", "ap_view"),
    *("frontal_view", "has_lateral", "projection_type", "follow_up_visit", "FU_number", "idx"),
    *("idx_1", "S.No", "serial", "case_id", "img_no", "TransferSyntaxUID", "PresentationLUTShape"),
    *("ImageDir", "Pediatric", "batch", "site", "study_year", "image_width", "rater_id"),
]


@pytest.mark.parametrize("cells", [["1", "1", "1"], ["1", "0", "1"], ["1.0", "0", "0.5"]])
def test_header_columns_are_no_labels(tmp_path: Path, cells: list[str]) -> None:
    table = read(tmp_path, dict.fromkeys(HEADERS, cells))
    assert table.class_names == ("Effusion",)
    assert not any(note.startswith("Warning") for note in table.notes)
    wanted = read(tmp_path, {"InstanceNumber": ["1", "0", "1"]}, ["InstanceNumber"])
    assert wanted.targets[:, 0].tolist() == [1, 0, 1]


# findings of the public datasets, which no rule about names may take away
FINDINGS = """
Adenopathy,Air Trapping,Aortic enlargement,Atelectasis,Calcification,Calcified Granuloma,
Calcification of the Aorta,Cardiomegaly,Clavicle fracture,Consolidation,COVID-19,Edema,Effusion,
Emphysema,Enlarged Cardiomediastinum,Enlarged PA,Fibrosis,Fissure,Foreign body,Fracture,Granuloma,
Hernia,Hilum,Hydropneumothorax,ILD,Infarction,Infiltration,Interstitial lung disease,Kyphosis,
Lobar Atelectasis,Lung Lesion,Lung Opacity,Lung cavity,Mass,Mediastinal shift,Nodule,Nodule/Mass,
No Finding,No_Finding,Normal,Other lesion,Pacemaker,Pleural Effusion,Pleural Other,
Pleural_Thickening,Pneumomediastinum,Pneumonia,Pneumoperitoneum,Pneumothorax,Rib fracture,
Round(ed) Atelectasis,Scoliosis,Skin fold,Subcutaneous Emphysema,Support Devices,TB,Target,Tortuous
Aorta,Tube,Tuberculosis,abnormal,density,exclude,label,normal,unchanged,NSG tube,y,y1,x
"""


def test_findings_are_not_taken_for_header_columns() -> None:
    ours = read_columns(OURS)
    mapped = [text for column in ours.values() for text in column.values]
    names = [*NIH_LABELS, *CHEXPERT_LABELS, *mapped, *" ".join(FINDINGS.split()).split(",")]
    assert [name for name in names if is_known_non_label(name.strip())] == []


def test_the_dicom_names_are_the_standards() -> None:
    binary = {"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW", "AT"}
    groups = (0x08, 0x10, 0x18, 0x20, 0x28, 0x32, 0x38, 0x40)
    standard = {
        keyword
        for keyword, tag in keyword_dict.items()
        if keyword and tag >> 16 in groups and dictionary_VR(tag) not in binary
    }
    # a test's result is what a classifier is trained for
    assert set(
        Path(columns.__file__).with_name("dicom_names.txt").read_text().split()
    ) == standard - {"TestResult"}


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ('Mass,"Edema, pulmonary"', ["Mass", "Edema, pulmonary"]),
        ('"Edema, pulmonary" , Mass', ["Edema, pulmonary", "Mass"]),
        ('"say ""x""",Mass', ['say "x"', "Mass"]),
        ('6" tube,Mass', ['6" tube', "Mass"]),
        (" Mass , ,Edema ", ["Mass", "Edema"]),
        ("", None),
    ],
)
def test_a_label_with_a_comma_is_named_in_quotes(flag: str, names: list[str] | None) -> None:
    assert DataConfig(labels=flag).label_names == names


def test_a_label_with_a_comma_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('ImageID,PatientID,"Edema, pulmonary",Mass\na,1,1,0\nb,2,0,1\n')
    data = DataConfig(train_csv=(path,), labels='"Edema, pulmonary"')
    table = gather(data, images=False)
    assert table.class_names == ("Edema, pulmonary",)
    assert table.targets.tolist() == [[1], [0]]
    with pytest.raises(UserError, match=r"no label column 'Edema'.*double quotes"):
        gather(DataConfig(train_csv=(path,), labels="Edema, pulmonary"), images=False)
