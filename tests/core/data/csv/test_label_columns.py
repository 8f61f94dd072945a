"""Choice of label columns: none is dropped silently, and header columns are excluded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict

from core.config.data import DataConfig
from core.data.csv import columns
from core.data.csv.columns import read_columns
from core.data.csv.non_labels import is_known_non_label
from core.data.sources.nih import LABELS as NIH_LABELS
from core.data.sources.source_table import CHEXPERT_LABELS
from core.data.tables import LabelTable, read_table
from core.data.tables.label_map import BUILT_IN
from core.data.tables.load import gather
from core.errors import UserError

NAN = np.nan


def read(
    folder: Path, others: Mapping[str, Sequence[str]], labels: list[str] | None = None
) -> LabelTable:
    """Table of these columns and the label Effusion (0, 1, 0, ...)."""
    path, rows = folder / "t.csv", len(next(iter(others.values())))
    given = {"ImageID": [f"{row}.png" for row in range(rows)], "PatientID": range(rows)}
    effusion = {"Effusion": [str(row % 2) for row in range(rows)]}
    pd.DataFrame({**given, **effusion, **others}).to_csv(path, index=False)
    return read_table(path, None, labels, blank="unknown", source="plain")


@pytest.mark.parametrize(
    ("cells", "targets"),
    [
        (["NA", "0", "NA", "1"], [NAN, 0, NAN, 1]),
        (["TRUE", "No", "yes", "False"], [1, 0, 1, 0]),
        (["+1", "0", "-1", "1e0"], [1, 0, NAN, 1]),
        (["1.00", "NULL", "<NA>", "0e0"], [1, NAN, NAN, 0]),
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
        (["t", "f", "f", "t"], 2, "t"),
        (["", "Positive", "Negative", "uncertain"], 3, "Positive"),
        (["", "Positive", "", "Positive"], 3, "Positive"),
        (["0.9", "NA", "1e-3", ""], 2, "0.9"),
        (["1", "0", "0.5", "0"], 4, "0.5"),
    ],
)
def test_a_column_that_looks_like_a_label_stops_with_its_cell(
    tmp_path: Path, cells: list[str], row: int, value: str
) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, {"Mass": cells})
    message = str(refused.value)
    assert f"row {row} (the header is row 1), column 'Mass' holds '{value}'" in message
    assert "name the label columns with --labels" in message
    assert ("with --soft_labels" in message) == value.startswith("0.")
    assert read(tmp_path, {"Mass": cells}, ["Effusion"]).class_names == ("Effusion",)


@pytest.mark.parametrize(
    "cells",
    [
        ["0", "71", "1", "58", "66"],
        ["0.143", "0.143", "0.143", "0.143", "0.143"],
        ["", "NA", "nan", "None", ""],
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


@pytest.mark.parametrize("cell", ["1", "yes"])
def test_a_column_of_ones_is_a_label_by_request_alone(tmp_path: Path, cell: str) -> None:
    ones = {"Quality": [cell] * 4}
    for labels, class_names, sentence in (
        (None, ("Effusion",), "that are 1 for every image are left out: Quality. Name them by --"),
        (["Quality"], ("Quality",), "is negative for Quality"),
    ):
        table = read(tmp_path, ones, labels)
        assert table.class_names == class_names
        (note,) = [note for note in table.notes if note.startswith("Warning")]
        assert sentence in note
    # beside a blank a 1 is a label: the other images are unknown
    assert read(tmp_path, {"Quality": [cell, "", cell, cell]}).class_names[1:] == ("Quality",)


def test_a_label_of_one_csv_that_is_1_in_all_of_another(tmp_path: Path) -> None:
    rows = {"sick": "a,1,1,0\nb,2,1,1\n", "other": "c,1,0,1\nd,2,1,0\n"}
    for name, cells in rows.items():
        (tmp_path / f"{name}.csv").write_text(f"ImageID,PatientID,TB,Mass\n{cells}")
    csvs = tmp_path / "sick.csv", tmp_path / "other.csv"
    table = gather(DataConfig(train_csv=csvs), images=False)
    named = dict(zip(table.class_names, table.targets.T.tolist(), strict=True))
    assert named == {"TB": [1, 1, 0, 1], "Mass": [0, 1, 1, 0]}


# what may be all 1, or 1 and 0, in tables that are made of DICOM headers and of file lists
HEADERS = """
InstanceNumber,SamplesPerPixel,PlanarConfiguration,RescaleIntercept,NumberOfFrames,Instance Number,
PixelRepresentation_DICOM,samples_per_pixel,Follow-up #,follow_up_number,View,
Index,fold_id,cv_fold,kfold,fold0,PatientSex,sex_code,Male,is_female,Unnamed: 0_level_0,level_0,
Laterality,AP,visit_no,is_test,age_group,validation_fold,gender_male,View_AP,No.,series_no,Index 1,
InstanceNumber_x,WindowWidth.1,PixelSpacing_0,sex_at_birth,dcm.SeriesNumber,DICOM: Instance Number,
00280002,Patient Gender_M,sex_encoded,M/F,is_PA,frontal_view,projection_type,FU_number,idx_1,S.No,
case_id,img_no,TransferSyntaxUID,ImageDir,Pediatric,batch,site,study_year,image_width,rater_id
"""


@pytest.mark.parametrize("cells", [["1", "1", "1"], ["1", "0", "1"], ["1.0", "0", "0.5"]])
def test_header_columns_are_not_labels(tmp_path: Path, cells: list[str]) -> None:
    names = [*HEADERS.replace("\n", "").split(","), "(0020,0013)"]
    table = read(tmp_path, dict.fromkeys(names, cells))
    assert table.class_names == ("Effusion",)
    assert not any(note.startswith("Warning") for note in table.notes)
    wanted = read(tmp_path, {"InstanceNumber": ["1", "0", "1"]}, ["InstanceNumber"])
    assert wanted.targets[:, 0].tolist() == [1, 0, 1]


# findings of the public datasets, which no rule about names may take away
FINDINGS = """
Air Trapping,Calcified Granuloma,COVID-19,Enlarged PA,Fissure,Foreign body,Hilum,ILD,Infarction,
Kyphosis,Lung cavity,Mediastinal shift,Nodule/Mass,Other lesion,Pacemaker,Skin fold,TB,Target,Tube,
abnormal,density,exclude,label,normal,unchanged,NSG tube,y,y1,x
"""


def test_findings_are_not_taken_for_header_columns() -> None:
    mapped = [text for column in read_columns(BUILT_IN).values() for text in column.values]
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
    ours = Path(columns.__file__).with_name("dicom_names.txt").read_text().split()
    assert set(ours) == standard - {"TestResult"}


def test_a_label_with_a_comma_is_named_in_quotes(tmp_path: Path) -> None:
    flag = DataConfig(labels='"Edema, pulmonary" , "say ""x""",6" tube, ,')
    assert flag.label_names == ["Edema, pulmonary", 'say "x"', '6" tube']
    assert DataConfig(labels="").label_names is None
    path = tmp_path / "t.csv"
    path.write_text('ImageID,PatientID,"Edema, pulmonary",Mass\na,1,1,0\nb,2,0,1\n')
    table = gather(DataConfig(train_csv=(path,), labels='"Edema, pulmonary"'), images=False)
    assert (table.class_names, table.targets.tolist()) == (("Edema, pulmonary",), [[1], [0]])
    with pytest.raises(UserError, match=r"no label column 'Edema'.*double quotes"):
        gather(DataConfig(train_csv=(path,), labels="Edema, pulmonary"), images=False)
