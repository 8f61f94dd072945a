"""CheXpert's paths, MIMIC-CXR-JPG's three tables and CXR-LT's one: who, which view, what is 0."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError

HERE = Path(__file__).parent
CHEXPERT = HERE / "chexpert" / "train.csv"
CXR_LT = HERE / "cxr_lt" / "labels.csv"
NAN = np.nan
STEM = "mimic-cxr-2.0.0"


def values(table: LabelTable, name: str) -> list[float]:
    found: list[float] = table.targets[:, table.class_names.index(name)].tolist()
    return found


def test_chexpert() -> None:
    table = read_table(CHEXPERT, None)
    assert len(table.class_names) == 14
    assert table.class_names[:2] == ("No Finding", "Enlarged Cardiomediastinum")
    assert table.patients is not None
    assert table.patients.tolist() == [f"patient0000{n}" for n in (1, 2, 2, 2, 3, 4)]
    assert table.studies is not None
    assert table.studies.tolist()[:4] == [
        *("patient00001/study1", "patient00002/study2", "patient00002/study1"),
        "patient00002/study1",
    ]
    assert table.views is not None
    assert table.views.tolist() == ["AP", "AP", "AP", "Lateral", "PA", "Frontal"]
    # blank is 0 and -1 unknown, unless the user says otherwise
    assert np.array_equal(values(table, "Consolidation"), [0, NAN, NAN, NAN, 0, 0], equal_nan=True)
    assert values(table, "Fracture") == [0, 1, 1, 1, 0, 0]
    assert any("blank label" in note and "means zero" in note for note in table.notes)
    assert not any("not used" in note for note in table.notes)

    other = read_table(CHEXPERT, None, uncertain="one", blank="unknown")
    expected = [NAN, 1, 1, 1, NAN, 0]
    assert np.array_equal(values(other, "Consolidation"), expected, equal_nan=True)
    assert any("means unknown, as --blank says, and not zero" in note for note in other.notes)
    assert read_table(CHEXPERT, None, views="lateral").ids == [table.ids[3]]
    assert len(read_table(CHEXPERT, None, views="frontal")) == 5


def test_chexpert_with_backslashes(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        CHEXPERT.read_text()
        .replace("/patient", "\\patient")
        .replace("/study", "\\study")
        .replace("/view", "\\view")
    )
    table, same = read_table(path, None), read_table(CHEXPERT, None)
    assert table.patients is not None
    assert same.patients is not None
    assert table.patients.tolist() == same.patients.tolist()
    np.testing.assert_array_equal(table.targets, same.targets)


def test_a_path_that_is_not_chexperts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Path,Edema\ntrain/patient1/study1/a.jpg,1\ntrain/b.jpg,0\n")
    with pytest.raises(UserError, match=r"row 3 \(the header is row 1\) names 'train/b.jpg'"):
        read_table(path, None, source="chexpert")
    path.write_text("Path,Fever\ntrain/patient1/study1/a.jpg,1\n")
    assert read_table(path, None, source="chexpert").class_names == ("Fever",)


def mimic(folder: Path, *without: str, labels: str = "chexpert") -> Path:
    """The tables as they are published, compressed, but for those of these kinds."""
    for what in {"chexpert", "metadata", "split"} - set(without):
        name = f"{STEM}-{labels if what == 'chexpert' else what}.csv.gz"
        (folder / name).write_bytes(
            gzip.compress((HERE / "mimic" / f"{STEM}-{what}.csv").read_bytes())
        )
    return folder / f"{STEM}-{labels}.csv.gz"


@pytest.mark.parametrize("labels", ["chexpert", "negbio"])
def test_mimic(tmp_path: Path, labels: str) -> None:
    table = read_table(mimic(tmp_path, labels=labels), None)
    first = ["02aa804e", "174413ec", "2a2277a9", "096052b7", "b79e55c3", "2a280266"]
    assert [name[:8] for name in table.ids] == first
    assert table.patients is not None
    assert table.patients.tolist() == ["10000032"] * 3 + ["10000764"] * 2 + ["10000898"]
    assert table.studies is not None
    assert table.studies.tolist()[1:4] == ["50414267", "53189527", "57375967"]
    assert table.views is not None
    assert table.views.tolist() == ["PA", "LATERAL", "PA", "AP", "", "LL"]
    assert len(table.class_names) == 14
    assert values(table, "No Finding") == [1, 1, 1, 0, 0, 0]
    assert np.array_equal(values(table, "Pneumonia"), [0, 0, 0, NAN, NAN, 0], equal_nan=True)
    assert values(table, "Consolidation") == [0, 0, 0, 1, 1, 0]
    assert values(table, "Cardiomegaly") == [0, 0, 0, 0, 0, 1]
    assert any("1 of 7 images" in note and "have no row in" in note for note in table.notes)
    assert any("1 of 5 studies" in note and "have no image" in note for note in table.notes)
    assert any("means zero" in note for note in table.notes)


def test_mimic_files_are_found_by_their_names(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    wanted = read_table(path, None, official_split="test")
    assert [name[:8] for name in wanted.ids] == ["096052b7", "b79e55c3"]
    folder = tmp_path / "files" / "p10" / "p10000764" / "s57375967"
    folder.mkdir(parents=True)
    for name in wanted.ids:
        (folder / f"{name}.jpg").touch()
    table = read_table(path, tmp_path / "files", official_split="test")
    assert table.paths == [str(folder / f"{name}.jpg") for name in table.ids]
    train = read_table(path, None, official_split="train", views="lateral")
    assert [name[:8] for name in train.ids] == ["174413ec", "2a280266"]
    assert any("2 of 6 images, its official test, are left out" in note for note in train.notes)
    assert any("2 of 4 images are lateral views" in note for note in train.notes)


def test_mimic_tables_that_are_not_there(tmp_path: Path) -> None:
    path = mimic(tmp_path, "metadata", "split")
    with pytest.raises(UserError, match=f"{STEM}-metadata.csv.gz, is not beside it"):
        read_table(path, None)
    path = mimic(tmp_path, "split")
    with pytest.raises(UserError, match=rf"\(there is no {STEM}-split.csv.gz beside it\)"):
        read_table(path, None, official_split="test")
    notes = read_table(path, None, official_split="train").notes
    assert any("Warning: no official test" in note for note in notes)


def change(path: Path, old: str, new: str) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new).encode()))


def test_mimic_tables_that_disagree(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    change(path, "10000764,57375967", "10000765,57375967")
    with pytest.raises(UserError, match=r"row 4 .* patient 10000765, and .*, row 5, to 10000764"):
        read_table(path, None)
    path = mimic(tmp_path)
    change(path, "53189527", "50414267")
    with pytest.raises(UserError, match=r"row 3 .* names study '50414267' a second time"):
        read_table(path, None)
    path = mimic(tmp_path)
    change(tmp_path / f"{STEM}-metadata.csv.gz", ",5", ",6")
    with pytest.raises(UserError, match=r"No image of .* is of a study of"):
        read_table(path, None)
    mimic(tmp_path)
    change(tmp_path / f"{STEM}-split.csv.gz", "2a2277a9", "3a2277a9")
    assert any("1 image(s) are not in" in note for note in read_table(path, None).notes)


def test_a_wrong_label_of_mimic_is_told_by_its_own_row(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    change(path, "10000898,50771383,,1.0", "10000898,50771383,,maybe")
    with pytest.raises(UserError, match=r"chexpert.csv.gz: row 5 .* 'Cardiomegaly' holds 'maybe'"):
        read_table(path, None)
    path = mimic(tmp_path)
    change(tmp_path / f"{STEM}-metadata.csv.gz", ",10000898,50771383", ",,50771383")
    change(path, "10000898,50771383", ",50771383")
    with pytest.raises(UserError, match=r"metadata.csv.gz: row 7 .* names no patient"):
        read_table(path, None)


def test_labels_by_study_can_still_be_read_as_such(tmp_path: Path) -> None:
    table = read_table(mimic(tmp_path), None, ["Edema"], image_column="study_id", blank="zero")
    assert table.ids == ["50414267", "53189527", "57375967", "50771383", "59999999"]


def test_two_releases_of_mimic_side_by_side(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    metadata = tmp_path / f"{STEM}-metadata.csv.gz"
    shutil.copy(metadata, tmp_path / "mimic-cxr-2.1.0-metadata.csv.gz")
    assert len(read_table(path, None)) == 6
    metadata.rename(tmp_path / "mimic-cxr-1.0.0-metadata.csv.gz")
    with pytest.raises(
        UserError, match=r"Which of mimic-cxr-1.0.0-metadata.csv.gz, mimic-cxr-2.1.0"
    ):
        read_table(path, None)


def test_cxr_lt() -> None:
    table = read_table(CXR_LT, None)
    assert table.class_names == (
        *("Adenopathy", "Atelectasis", "Lobar Atelectasis", "Normal", "Round(ed) Atelectasis"),
    )
    assert [name[:8] for name in table.ids] == [f"0000000{n}" for n in range(5, 10)] + ["00000010"]
    assert table.patients is not None
    assert table.patients.tolist()[1:3] == ["15000170", "15000171"]
    assert table.studies is not None
    assert table.studies[0] == "54385701"
    assert values(table, "Atelectasis") == [1, 0, 0, 1, 0, 1]
    assert not any("not used" in note for note in table.notes)
    test = read_table(CXR_LT, None, official_split="test")
    assert [name[:8] for name in test.ids] == ["00000008", "00000009"]
    frontal = read_table(CXR_LT, None, views="frontal")
    assert [name[:8] for name in frontal.ids] == ["00000005", "00000007", "00000010"]


def test_the_first_column_of_chexperts_views_is_the_authority(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [("Frontal", "LL"), ("Frontal", "PA"), ("Frontal", ""), ("Lateral", "AP")]
    text = "Path,Frontal/Lateral,AP/PA,No Finding\n"
    for number, row in enumerate(rows):
        text += f"train/patient{number}/study1/a.jpg,{','.join(row)},1\n"
    path.write_text(text)
    table = read_table(path, None)
    assert table.views is not None
    assert table.views.tolist() == ["Frontal", "PA", "Frontal", "Lateral"]
    assert len(read_table(path, None, views="frontal")) == 3


def add(path: Path, row: str) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + f"{row}\n".encode()))


def test_an_image_twice_in_the_split_of_mimic(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    split = tmp_path / f"{STEM}-split.csv.gz"
    rows = gzip.decompress(split.read_bytes()).decode().splitlines()
    add(split, rows[4])
    assert len(read_table(path, None, official_split="test")) == 2
    add(split, rows[4].replace("test", "train"))
    place = len(rows) + 2
    with pytest.raises(UserError, match=rf"split.csv.gz: row {place} .*'train', and row 5 'test'"):
        read_table(path, None)


@pytest.mark.parametrize(("old", "new"), [("57375967", "57375968"), (",10000764", ",10000765")])
def test_a_split_of_mimic_that_contradicts_the_metadata(tmp_path: Path, old: str, new: str) -> None:
    path = mimic(tmp_path)
    change(tmp_path / f"{STEM}-split.csv.gz", old, new)
    with pytest.raises(UserError, match=r"split.csv.gz: row 5 .*metadata.csv.gz, row 5, '"):
        read_table(path, None)


def test_an_image_twice_in_the_metadata_of_mimic(tmp_path: Path) -> None:
    path = mimic(tmp_path)
    metadata = tmp_path / f"{STEM}-metadata.csv.gz"
    rows = gzip.decompress(metadata.read_bytes()).decode().splitlines()
    add(metadata, rows[1])
    with pytest.raises(
        UserError, match=rf"metadata.csv.gz: 1 image.*02aa804e.*again in row {len(rows) + 1};"
    ):
        read_table(path, None)


def test_the_split_of_mimics_studies(tmp_path: Path) -> None:
    path = mimic(tmp_path, "metadata")
    split = tmp_path / f"{STEM}-split.csv.gz"
    test = read_table(path, None, image_column="study_id", official_split="test")
    assert test.ids == ["57375967"]
    assert test.patients is not None
    assert test.patients.tolist() == ["10000764"]
    train = read_table(path, None, image_column="study_id", official_split="train")
    assert train.ids == ["50414267", "53189527", "50771383", "59999999"]
    assert any("1 of 5 studies are not in" in note and "59999999" in note for note in train.notes)
    first = gzip.decompress(split.read_bytes()).decode().splitlines()[1]
    change(split, first, first.replace("train", "test"))
    with pytest.raises(UserError, match=r"row 3 .*'50414267' the split 'train', and row 2 'test'"):
        read_table(path, None, image_column="study_id")
