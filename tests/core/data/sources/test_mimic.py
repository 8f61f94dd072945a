"""MIMIC-CXR-JPG's three tables: joined, and refused where they disagree."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from core.data.tables import read_table
from core.errors import UserError

HERE = Path(__file__).parent / "mimic"
STEM = "mimic-cxr-2.0.0"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """The table of labels, beside copies of the others."""
    for file in HERE.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / f"{STEM}-chexpert.csv"


def of(labels: Path, what: str) -> Path:
    return labels.with_name(f"{STEM}-{what}.csv")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_tables_that_are_not_there(labels: Path) -> None:
    of(labels, "split").unlink()
    notes = read_table(labels, None, official_split="train").notes
    assert any("Warning: no official test" in note for note in notes)
    with pytest.raises(UserError, match=rf"\(there is no {STEM}-split.csv.gz beside it\)"):
        read_table(labels, None, official_split="test")
    of(labels, "metadata").unlink()
    with pytest.raises(UserError, match=f"{STEM}-metadata.csv.gz there"):
        read_table(labels, None)


@pytest.mark.parametrize(
    ("what", "old", "new", "sentence"),
    [
        (
            *("chexpert", "10000764,57375967", "10000765,57375967"),
            r"row 4 .* subject_id '10000765', but .*, row 5, has '10000764'",
        ),
        ("chexpert", "53189527", "50414267", r"row 3 .* names study '50414267' a second time"),
        ("metadata", ",5", ",6", r"No image of .* is in a study of"),
        (
            *("chexpert", "10000898,50771383,,1.0", "10000898,50771383,,maybe"),
            r"chexpert.csv: row 5 .* 'Cardiomegaly' holds 'maybe'",
        ),
        (
            *("metadata", ",10000898,50771383", ",,50771383"),
            r"metadata.csv: row 7 .* has no patient",
        ),
        ("split", "57375967", "57375968", r"split.csv: row 5 .*metadata.csv, row 5, has '"),
        ("split", ",10000764", ",10000765", r"split.csv: row 5 .*metadata.csv, row 5, has '"),
    ],
)
def test_tables_that_disagree(labels: Path, what: str, old: str, new: str, sentence: str) -> None:
    change(of(labels, what), old, new)
    with pytest.raises(UserError, match=sentence):
        read_table(labels, None)


@pytest.mark.parametrize(
    ("what", "row", "old", "sentence"),
    [
        ("split", 4, "test", r"split.csv: row 5 .*'test', but .*split.csv, row {}, has 'train'"),
        ("metadata", 1, "", r"metadata.csv: 1 image.*02aa804e.*again in row {};"),
    ],
)
def test_an_image_that_is_there_twice(
    labels: Path, what: str, row: int, old: str, sentence: str
) -> None:
    path = of(labels, what)
    rows = path.read_text().splitlines()
    if old:
        # the same row twice is not a contradiction
        path.write_text("\n".join([*rows, rows[row]]) + "\n")
        assert len(read_table(labels, None, official_split="test")) == 2
    path.write_text("\n".join([*rows, rows[row].replace(old or "\0", "train")]) + "\n")
    with pytest.raises(UserError, match=sentence.format(len(rows) + 1)):
        read_table(labels, None)


def test_files_are_found_by_their_names(labels: Path) -> None:
    assert len(read_table(labels.rename(of(labels, "negbio")), None)) == 6
    of(labels, "negbio").rename(labels)
    change(of(labels, "split"), "2a2277a9", "3a2277a9")
    assert any("1 image(s) are not in" in note for note in read_table(labels, None).notes)
    metadata = of(labels, "metadata")
    shutil.copy(metadata, labels.with_name("mimic-cxr-2.1.0-metadata.csv"))
    assert len(read_table(labels, None)) == 6
    metadata.rename(labels.with_name("mimic-cxr-1.0.0-metadata.csv"))
    with pytest.raises(
        UserError, match=r"several tables .* mimic-cxr-1.0.0-metadata.csv, mimic-cxr-2.1.0"
    ):
        read_table(labels, None)


def test_labels_by_study_can_still_be_read_as_such(labels: Path) -> None:
    of(labels, "metadata").unlink()

    def read(split: str) -> Any:
        return read_table(labels, None, image_column="study_id", official_split=split)

    assert read("all").ids == ["50414267", "53189527", "57375967", "50771383", "59999999"]
    assert (read("test").ids, read("test").patients.tolist()) == (["57375967"], ["10000764"])
    train = read("train")
    assert train.ids == ["50414267", "53189527", "50771383", "59999999"]
    assert any("1 of 5 studies are not in" in note and "59999999" in note for note in train.notes)
    first = of(labels, "split").read_text().splitlines()[1]
    change(of(labels, "split"), first, first.replace("train", "test"))
    with pytest.raises(
        UserError, match=r"row 2 .* split 'test', but .*split.csv, row 3, has 'train'"
    ):
        read("all")
