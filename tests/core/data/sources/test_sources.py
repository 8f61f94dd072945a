"""Tables of known datasets as they are published: recognised by their columns, and read."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.data.csv.columns import read_columns
from core.data.sources import SOURCES, read_source_table, recognise
from core.data.sources.nih import LABELS as NIH_LABELS
from core.data.sources.source_table import CHEXPERT_LABELS
from core.data.tables import LabelReading, LabelTable, read_table
from core.errors import UserError
from tests.core.data.conftest import Read, Refuse

HERE = Path(__file__).parent
NIH = "nih/Data_Entry_2017_v2020.csv"
CHEXPERT = "chexpert/train.csv"
MIMIC = "mimic/mimic-cxr-2.0.0-chexpert.csv"
CXR_LT = "cxr_lt/labels.csv"
PADCHEST = "padchest/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
CXR_LT_2026 = "padchest/cxr_lt_2026_train.csv"
VINDR, VINDR_TEST = "vindr/image_labels_train.csv", "vindr/image_labels_test.csv"
VINDR_LABELS = (
    *("Aortic enlargement", "Atelectasis", "Cardiomegaly", "ILD", "Nodule/Mass"),
    *("Other diseases", "No finding"),
)
# what each table says, by hand; the first of its images
PUBLISHED: dict[str, dict[str, Any]] = {
    NIH: {
        "source": "nih",
        "class_names": NIH_LABELS,
        "ids": ["00000001_000.png", "00000001_001.png"],
        "patients": ["1", "1", "2", "3", "3", "13", "13"],
        "studies": None,
        "views": ["PA", "PA", "PA", "AP", "AP", "AP", "AP"],
        "positive": "Cardiomegaly|Cardiomegaly Emphysema|No Finding|Hernia"
        "|Hernia Mass Pleural_Thickening|No Finding|Infiltration",
        "unknown": "||||||",
    },
    CHEXPERT: {
        "source": "chexpert",
        "class_names": CHEXPERT_LABELS,
        "patients": [f"patient0000{n}" for n in (1, 2, 2, 2, 3, 4)],
        "studies": [
            f"patient0000{n}/study{m}" for n, m in ((1, 1), (2, 2), (2, 1), (2, 1), (3, 1), (4, 1))
        ],
        "views": ["AP", "AP", "AP", "Lateral", "PA", "Frontal"],
        "positive": "No Finding Support Devices|Lung Opacity Fracture|Lung Opacity Fracture"
        "|Lung Opacity Fracture|Edema|No Finding",
        "unknown": "|Cardiomegaly Edema Consolidation Atelectasis Pleural Effusion"
        "|Consolidation|Consolidation||",
        "notes": ["A blank label of .* means zero"],
    },
    MIMIC: {
        "source": "mimic",
        "class_names": tuple(sorted(CHEXPERT_LABELS)),
        "ids": ["02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"],
        "patients": ["10000032"] * 3 + ["10000764"] * 2 + ["10000898"],
        "studies": ["50414267"] * 2 + ["53189527"] + ["57375967"] * 2 + ["50771383"],
        "views": ["PA", "LATERAL", "PA", "AP", "", "LL"],
        "positive": "No Finding|No Finding|No Finding|Consolidation|Consolidation|Cardiomegaly",
        "unknown": "|||Pneumonia|Pneumonia|",
        "notes": [
            "1 of 7 images .* have no row in",
            "1 of 5 studies .* have no image",
            "A blank label of .* means zero",
        ],
    },
    CXR_LT: {
        "source": "cxr_lt",
        "class_names": (
            *("Adenopathy", "Atelectasis", "Lobar Atelectasis", "Normal", "Round(ed) Atelectasis"),
        ),
        "ids": [f"{n:08}-aaaa1111-bbbb2222-cccc3333-dddd4444" for n in range(5, 11)],
        "patients": [f"1500017{n}" for n in (0, 0, 1, 2, 2, 3)],
        "studies": [f"5438570{n}" for n in range(1, 7)],
        "views": ["AP", "LATERAL", "PA", "", "LL", "AP AXIAL"],
        "positive": "Atelectasis Lobar Atelectasis|Normal|Adenopathy"
        "|Atelectasis Round(ed) Atelectasis|Normal|Adenopathy Atelectasis",
        "unknown": "|||||",
    },
    PADCHEST: {
        "source": "padchest",
        "class_names": (
            *("costal fracture", "crohn's sign", "kyphosis", "nodule", "normal"),
            "pleural effusion",
        ),
        "ids": ["20536686640136348236148679891455886468_k6ga29.png"],
        "patients": [
            "839860488694292331637988235681460987",
            "313572750430997347502932654319389875966",
            *["50783093527901818115346441867348318648"] * 2,
        ],
        "views": ["PA", "L", "AP_horizontal", "COSTAL"],
        "positive": "normal|kyphosis pleural effusion|crohn's sign nodule pleural effusion"
        "|costal fracture",
        "unknown": "|||",
        "notes": ["4 of 8 images .* projection of 2 are 'exclude', and 2 have no label"],
    },
    CXR_LT_2026: {
        "source": "padchest",
        "class_names": ("Normal", "cardiomegaly", "pleural effusion"),
        "patients": [f"1000000{n}" for n in (1, 1, 2, 3, 4, 4)],
        "studies": None,
        "positive": "Normal|cardiomegaly pleural effusion|pleural effusion|Normal|cardiomegaly"
        "|cardiomegaly",
        "unknown": "|||||",
    },
    VINDR: {
        "source": "vindr",
        "class_names": VINDR_LABELS,
        "ids": ["000434271f63a053c4128a0ba6352c7f"],
        "patients": None,
        "views": None,
        "positive": "No finding|Aortic enlargement|Atelectasis ILD",
        "unknown": "||",
        "notes": [r"3 reader\(s\)", "has no known patient column"],
    },
    VINDR_TEST: {
        "source": "vindr",
        "class_names": VINDR_LABELS,
        "positive": "No finding|Aortic enlargement Cardiomegaly|ILD Other diseases|No finding"
        "|Aortic enlargement Atelectasis Nodule/Mass|No finding",
        "unknown": "|||||",
    },
}


def named(table: LabelTable, chosen: np.ndarray) -> str:
    """The names of the chosen labels, (N, C) bool, of each image."""
    names = np.array(table.class_names)
    return "|".join(" ".join(names[row]) for row in chosen)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_is_read_as_expected(name: str) -> None:
    wanted = dict(PUBLISHED[name])
    table, source = read_table(HERE / name, None), wanted.pop("source")
    assert named(table, table.targets == 1) == wanted.pop("positive")
    assert named(table, np.isnan(table.targets)) == wanted.pop("unknown")
    ids = wanted.pop("ids", [])
    assert table.ids[: len(ids)] == ids
    for note in wanted.pop("notes", []):
        assert pd.Series(table.notes).str.contains(note).sum() == 1
    for field, value in wanted.items():
        found = getattr(table, field)
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
    assert not any("not used" in note for note in table.notes)
    # recognised, with a note; none where --source names it
    assert recognise(HERE / name, read_columns(HERE / name)) == source
    assert table.notes[0].startswith(f"{HERE / name} is read as {SOURCES[source].table}")
    notes = read_source_table(HERE / name, LabelReading(source=(source,))).notes
    assert not any("is read as" in note for note in notes)


@pytest.mark.parametrize(
    "header",
    [
        "ImageID,PatientID,Mass,No_Finding",
        "ImageID,PatientID,StudyID,Projection,normal,nodule",
        "Image Index,Finding Labels,Patient ID,View Position,Mass",
        "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Fracture",
        "study_id,subject_id,No Finding,Edema",
        "dicom_id,subject_id,study_id,ViewPosition,No Finding",
        "image_id,patient_id,Aortic enlargement,No finding",
        "ImageID,PatientID,RadID,Mass",
        "ImageID,PatientID,StudyDate_DICOM,Projection,Labels,Mass",
        "image,subject_id,study_id,No Finding",
    ],
)
def test_a_plain_table_stays_unchanged(tmp_path: Path, header: str) -> None:
    path = tmp_path / ("mimic-cxr-own.csv" if header.startswith("image,") else "t.csv")
    path.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    sheet = read_source_table(path)
    assert (list(sheet.columns), sheet.notes, sheet.labels) == (header.split(","), (), None)


def test_real_plain_tables_stay_unchanged(real_data: Path) -> None:
    files = ["nih1000/train.csv", "nih1000/meta.csv", "nih64/meta.csv"]
    for path in (*(real_data / name for name in files), *(real_data / "labels").iterdir()):
        assert recognise(path, read_columns(path)) == "plain"


def test_a_source_that_is_not_known_is_refused() -> None:
    for name, hint in (("chexprt", r": did you mean 'chexpert'\?"), ("hospital", "; it has nih, ")):
        with pytest.raises(UserError, match=f"no --source '{name}'{hint}"):
            read_table(HERE / CHEXPERT, None, source=name)


@pytest.mark.parametrize(
    ("name", "fields", "starts", "note"),
    [
        (NIH, {"official_split": "train"}, ("00000001", "00000001", "00000002", "00000013"), "2"),
        (NIH, {"official_split": "test"}, ("00000003", "00000003"), "2 of 7 .* are selected"),
        (CXR_LT, {"official_split": "test"}, ("00000008", "00000009"), "2 of 6 .* selected"),
        (PADCHEST, {"views": "frontal"}, ("20536686", "11385534"), "2 of 4 .* are frontal views"),
        (
            MIMIC,
            {"official_split": "train", "views": "lateral"},
            ("174413ec", "2a280266"),
            "2 of 4 images are lateral views",
        ),
    ],
)
def test_images_of_a_split_or_a_view(
    name: str, fields: dict[str, Any], starts: tuple[str, ...], note: str
) -> None:
    table = read_table(HERE / name, None, **fields)
    assert [one[:8] for one in table.ids][: len(starts)] == [*starts]
    assert pd.Series(table.notes).str.contains(note).any()


READERS = "image_id,rad_id,Mass\na,R1,1\n"
VIEWS = "ImageID,PatientID,View,Mass\na,1,PA,1\nb,2,AP,0\nc,3,,0\nd,4,PA,small\n"
MASS = {"labels": ["Mass"]}
BOXES = "image_id,rad_id,class_name,x_min\na,R1,Mass,1\na,R2,Mass,1\n"


@pytest.mark.parametrize(
    ("text", "sentence", "fields"),
    [
        *(
            ("film,Mass\na,1\n", f"no column '.*', which --source {one} needs", {"source": one})
            for one in SOURCES
        ),
        (f"{READERS}a,R2,1\nb,R1,1\nb,R2,1\nc,R2,1\n", r"1 image.* 2 .*'c', row 6, has 1", {}),
        (f"{READERS}a,R1,1\nb,R1,1\nb,R2,1\n", "row 3 .* reader 'R1' a second time .*'a'", {}),
        (f"{READERS}b,R1,maybe\n", r"row 3 .* column 'Mass' holds 'maybe'", {}),
        (f"{READERS}a,,1\n", r"row 3 .* has no reader in column 'rad_id'", {}),
        (BOXES, r"is a table of boxes .*image_labels_train\.csv", {"source": "vindr"}),
        (BOXES, "^(?!.*(VinDr|reader)).*$", {}),
        (VIEWS, r"none of the 4 images.*PA 2, AP 1, \(blank\) 1", {"views": "lateral"}),
        (VIEWS.replace("View", "V"), "has no view column", {"views": "frontal", **MASS}),
        # rows of the file, of which one is left out
        (VIEWS, r"row 5 \(.*'Mass' holds 'small'", {"views": "frontal", **MASS}),
        (
            "Path,Edema\ntrain/patient1/study1/a.jpg,1\ntrain/b.jpg,0\n",
            r"row 3 \(the header is row 1\): 'train/b.jpg'",
            {"source": "chexpert"},
        ),
    ],
)
def test_a_table_that_is_refused(
    refuse: Refuse, text: str, sentence: str, fields: dict[str, Any]
) -> None:
    refuse(text, sentence, **fields)


def test_chexperts_paths_and_views(read: Read) -> None:
    # some frontal images have LL in the other column
    rows = [("Frontal", "LL"), ("Frontal", "PA"), ("Frontal", ""), ("Lateral", "AP")]
    text = "Path,Frontal/Lateral,AP/PA,No Finding\n" + "".join(
        f"train\\patient{number}\\study1\\a.jpg,{','.join(row)},\n"
        for number, row in enumerate(rows)
    )
    table = read(text, blank="unknown")
    assert table.patients is not None
    assert table.patients.tolist() == [f"patient{number}" for number in range(4)]
    assert table.views is not None
    assert table.views.tolist() == ["Frontal", "PA", "Frontal", "Lateral"]
    assert any(
        "means unknown by --blank; the default there is zero" in note for note in table.notes
    )


def test_compressed_tables_are_read_as_the_others(tmp_path: Path) -> None:
    for name in (PADCHEST, MIMIC):
        for file in (HERE / name).parent.iterdir():
            (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        table = read_table(tmp_path / f"{Path(name).name}.gz", None)
        assert named(table, table.targets == 1) == PUBLISHED[name]["positive"]


@pytest.mark.parametrize(
    ("readers", "positive"),
    [
        ("majority", PUBLISHED[VINDR]["positive"]),
        (
            "any",
            "Nodule/Mass No finding|Aortic enlargement Cardiomegaly ILD"
            "|Atelectasis ILD Other diseases",
        ),
    ],
)
def test_readers_of_vindr_in_any_order(read: Read, readers: str, positive: str) -> None:
    header, *rows = (HERE / VINDR).read_text().splitlines()
    for order in (rows, rows[::-1]):
        table = read("\n".join([header, *order]), readers=readers)
        found = named(table, table.targets == 1).split("|")
        assert "|".join(found if order is rows else found[::-1]) == positive


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("True", "False")])
def test_half_of_the_readers_are_not_a_majority(read: Read, yes: str, no: str) -> None:
    text = f"image_id,rad_id,Mass\na,R1,{yes}\na,R2,{no}\nb,R1,{yes}\nb,R2,{yes}\n"
    assert read(text).targets.tolist() == [[0], [1]]
    assert read(text, readers="any").targets.tolist() == [[1], [1]]


def test_a_folder_without_the_lists_of_nih(tmp_path: Path) -> None:
    alone = shutil.copy(HERE / NIH, tmp_path)
    reason = r"\(there is no test_list.txt beside it\): pass --official"
    with pytest.raises(UserError, match=reason):
        read_table(alone, None, official_split="test")
    table = read_table(alone, None, official_split="train")
    assert len(table) == 7
    assert any("Warning: no official test images" in note for note in table.notes)
    assert not any("no official test" in note for note in read_table(alone, None).notes)
    with pytest.raises(UserError, match="has no official test images: pass --official_split all"):
        read_table(HERE / CXR_LT_2026, None, official_split="test")
