"""Labels that share a cell: NIH's "Mass|Hernia" and PadChest's "['nodule', 'kyphosis']"."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError
from tests.core.data.conftest import Read, Refuse

HERE = Path(__file__).parent
NIH_FILE = HERE / "nih" / "Data_Entry_2017_v2020.csv"
PADCHEST = HERE / "padchest" / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
NIH = "Image Index,Finding Labels,Patient ID\n"
LISTS = "ImageID,PatientID,StudyID,Projection,Labels\n"


def positives(table: LabelTable) -> list[list[str]]:
    names = np.array(table.class_names)
    return [names[row == 1].tolist() for row in table.targets]


@pytest.mark.parametrize("missing", ["nan", "None", ""])
def test_images_without_a_report_are_left_out_and_counted(
    read: Read, refuse: Refuse, missing: str
) -> None:
    table = read(
        f"{LISTS}a,1,1,PA,['mass']\nb,2,2,PA,{missing}\nc,3,3,EXCLUDE,{missing}\n"
        "d,4,4,L,\"['mass', 'kyphosis']\"\n"
    )
    assert (table.ids, positives(table)) == (["a", "d"], [["mass"], ["kyphosis", "mass"]])
    assert any("2 of 4 images" in note and "1 have no label" in note for note in table.notes)
    table = read(f"{NIH}a,Mass|Hernia,1\nb,{missing},2\nc,Mass|{missing},3\nd,No Finding,4\n")
    assert table.ids == ["a", "c", "d"]
    assert positives(table) == [["Hernia", "Mass"], ["Mass"], ["No Finding"]]
    assert any("1 of 4 images" in note and "no label" in note for note in table.notes)
    refuse(f"{NIH}a,{missing},1\n", "no image with a label in column 'Finding L", source="nih")


def test_spellings_of_one_label_are_one_class(read: Read) -> None:
    cells = ["No Finding", "No_Finding", "no finding", "Pleural Thickening| Mass", "mass|Cavity"]
    cells.append("cavity|Mass|MASS")
    text = NIH + "".join(f"{n},{cell},{n}\n" for n, cell in enumerate(cells))
    table = read(text)
    assert len(table.class_names) == 16
    found = [["No Finding"]] * 3 + [["Mass", "Pleural_Thickening"]] + [["Cavity", "Mass"]] * 2
    assert positives(table) == found
    asked = read(text, ["No_Finding", "mass"])
    assert asked.targets.tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    assert not any("counts as absent" in note for note in asked.notes)
    rows = "a,1,1,PA,\"['mass', 'COPD signs']\"\nb,2,2,PA,\"['Mass', 'x']\"\nc,3,3,PA,['EXCLUDE']\n"
    table = read(LISTS + rows)
    assert table.class_names == ("COPD signs", "mass", "x")
    assert table.targets.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_a_column_named_as_a_label_of_the_lists_is_dropped(read: Read) -> None:
    header = LISTS.replace("Labels", "Labels,Normal,Report")
    table = read(f"{header}a,1,1,PA,['normal'],0,x\nb,2,2,PA,\"['mass', 'report']\",1,y\n")
    assert positives(table) == [["normal"], ["mass", "report"]]
    for name in ("Normal", "Report"):
        start = f"Warning: column '{name}'"
        assert any(note.startswith(start) and "is ignored" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{NIH}a.png,Mass,1\nb.png, | ,2\n", r"row 3 \(the header is row 1\) has no label"),
        (
            f"{NIH}a.png,Mass|Patient ID,1\n",
            "has the label 'Patient ID', which is also the required col",
        ),
        (
            NIH + "".join(f"{n}.png,text {n},{n}\n" for n in range(1001)),
            "1,001 different labels; the maximum is 1,000",
        ),
        (
            f"{LISTS}a.png,1,1,EXCLUDE,['mass']\nb.png,2,2,PA,[]\n",
            "no image with a label that is not excluded",
        ),
        *(
            (
                f"{LISTS}a.png,1,1,PA,['mass']\nb.png,2,2,PA,\"{cell}\"\n",
                r"row 3 \(the header is row 1\), column 'Labels' .*not a list",
            )
            for cell in (
                *("nodule", "['nodule'", "'nodule']", "['nodule' 'mass']", "['nodule',]"),
                *("[nodule]", "['nodule'] + ['mass']", "['a\\x41']", "[['nodule']]", "nan, nan"),
            )
        ),
    ],
)
def test_an_invalid_list_of_labels_is_refused(refuse: Refuse, text: str, sentence: str) -> None:
    refuse(text, sentence)


@pytest.mark.parametrize(
    "cell",
    ["[" * 200_000, "['a'" + " " * 200_000, "[" + "'a'," * 50_000, "['" + "\\" * 99_999],
    ids=["brackets", "blanks", "items", "backslashes"],
)
def test_hostile_lists_take_no_longer_than_others(refuse: Refuse, cell: str) -> None:
    start = time.perf_counter()
    refuse(f'{LISTS}a.png,1,1,PA,"{cell}"\n', "not a list", source="padchest")
    assert time.perf_counter() - start < 2


def test_a_label_that_no_list_names_is_absent_from_every_image() -> None:
    table = read_table(PADCHEST, None, ["nodule", "nodules", "Normal"])
    assert table.class_names == ("nodule", "nodules", "Normal")
    assert np.array_equal(table.targets[:, 1], np.zeros(len(table)))
    assert np.array_equal(table.targets[:, [2]], read_table(PADCHEST, None, ["normal"]).targets)
    assert not any("not used" in note and " normal" in note for note in table.notes)
    absent = "names 'nodules', which counts as absent from every image: did you mean 'nodule'?"
    assert any(absent in note for note in table.notes)
    assert any("is positive for nodules," in note for note in table.notes)
    with pytest.raises(UserError, match=r"no label column 'nodul': did you mean 'nodule'\?"):
        read_table(PADCHEST, None, ["nodul"])


@pytest.mark.parametrize(
    ("more", "cells"),
    [
        ("downloaded,is_corrupt", ("True,False", "False,True")),
        ("exists,downloaded", ("1,1", "1,1")),
        ("fold,site,quality,", ("0,1,1,", "1,0,,")),
    ],
)
def test_nih_with_columns_about_its_files_is_still_nihs(
    read: Read, more: str, cells: tuple[str, str]
) -> None:
    rows = [f"a.png,Mass|Hernia,1,{cells[0]}", f"b.png,Mass,2,{cells[1]}"]
    table = read("\n".join([f"{NIH.strip()},{more}", *rows]) + "\n")
    assert len(table.class_names) == 15
    assert positives(table) == [["Hernia", "Mass"], ["Mass"]]


def test_the_lists_of_nih_must_agree(tmp_path: Path) -> None:
    path = Path(shutil.copy(NIH_FILE, tmp_path))
    test, train = tmp_path / "test_list.txt", tmp_path / "train_val_list.txt"
    test.write_text("00000003_000.jpg\n00000003_001.png\n")
    train.write_text("00000001_000.png\n00000001_001.png\n")
    table = read_table(path, None, official_split="train")
    assert len(table) == 5  # a list of other endings names the same images
    assert any("Warning: 3 image(s)" in note and "in neither" in note for note in table.notes)
    train.write_text("00000003_000.png\n")
    with pytest.raises(UserError, match=r"1 image\(s\) are in .*test_list.txt and in"):
        read_table(path, None)
    train.unlink()
    for names, wanted, kind in (
        ("x.png\n", "test", "training"),
        ("\n".join(read_table(NIH_FILE, None).ids), "train", "official test"),
    ):
        test.write_text(names)
        with pytest.raises(UserError, match=f"selects none of the 7 images .* are {kind} images"):
            read_table(path, None, official_split=wanted)
    test.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a list"):
        read_table(path, None)


@pytest.mark.parametrize("name", ["images_001/images/A.PNG", "C:\\images\\a.jpg"])
def test_the_official_test_of_nih_is_known_by_the_files_name(
    read: Read, tmp_path: Path, name: str
) -> None:
    text = f"{NIH}{name},Mass,1\nb.png,Mass,2\n"
    (tmp_path / "test_list.txt").write_text("a.png\n")
    assert read(text, official_split="train").ids == ["b.png"]
    (tmp_path / "test_list.txt").write_text("c.png\n")
    notes = read(text, official_split="train").notes
    assert any("test_list.txt has no image of" in note for note in notes)
