"""Shared images and patients of several CSVs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.errors import UserError
from tests.helpers.data.two_sources import data_config, two, write

CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema\n"
PADCHEST = "ImageID,PatientID,StudyID,Projection,Labels\n"
NIH = "Image Index,Finding Labels,Patient ID\n"
SPLIT = "dicom_id,study_id,subject_id,split\n"
STEM = "mimic-cxr-2.0.0"
# of MIMIC three images of two patients, the last one of the official test; of CXR-LT an image of
# its own, one that MIMIC trains with, and one of MIMIC's official test
MIMIC = {
    f"{STEM}-chexpert": "subject_id,study_id,Edema,No Finding\n10,501,1,\n10,502,,1\n11,503,1,",
    f"{STEM}-metadata": "dicom_id,subject_id,study_id,ViewPosition\n"
    "d1,10,501,PA\nd2,10,502,AP\nd3,11,503,AP",
    f"{STEM}-split": f"{SPLIT}d1,501,10,train\nd2,502,10,train\nd3,503,11,test",
    "lt": "dicom_id,subject_id,study_id,fpath,Edema\nd0,p10,s501,p/d0.jpg,0\n"
    "d2,p10,s502,p/d2.jpg,1\nd3,p11,s503,p/d3.jpg,1\nd4,p12,s504,p/d4.jpg,0",
}
TRAIN = "CheXpert-v1.0-small/train/patient0000"
VIEW = "study1/view1_frontal.jpg,F,50,Frontal,AP,"
CHEXPERTS = {
    "train": f"{CHEXPERT}{TRAIN}1/{VIEW},1.0\n{TRAIN}2/{VIEW},0.0",
    "more": f"{CHEXPERT}other/patient00002/study2/view1_frontal.jpg,F,50,Frontal,AP,,1.0\n"
    f"other/patient00001/{VIEW},1.0",
}


def save(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {name: folder / f"{name}.csv" for name in files}
    for name, path in paths.items():
        path.write_text(f"{files[name]}\n")
    return paths


def joint(*csvs: Path, **settings: Any) -> LabelTable:
    return gather(data_config(train_csv=csvs, **settings), images=False)


@pytest.mark.parametrize(
    ("files", "names", "fields", "ids", "people"),
    [
        (
            MIMIC,
            [f"{STEM}-chexpert", "lt"],
            {},
            [f"{STEM}-chexpert/d1", f"{STEM}-chexpert/d2", "lt/d0", "lt/d4"],
            [10, 10, 10, 12],
        ),
        # whichever is the first; what is left of MIMIC is one image
        (
            MIMIC,
            ["lt", f"{STEM}-chexpert"],
            {"official_split": "all"},
            ["lt/d0", "lt/d2", "lt/d3", "lt/d4", f"{STEM}-chexpert/d1"],
            [10, 10, 11, 12, 10],
        ),
        (
            {
                "padchest": f"{PADCHEST}a_1.png,5,s1,PA,['mass']\na_2.png,6,s2,PA,['edema']",
                "own": "ImageID,StudyDate_DICOM,PatientID,Mass\nA_2.png,2014,6,1\na_3.png,2014,5,0",
            },
            ["padchest", "own"],
            {},
            ["padchest/a_1.png", "padchest/a_2.png", "own/a_3.png"],
            [5, 6, 5],
        ),
        (
            CHEXPERTS,
            ["train", "more"],
            {},
            [
                *(f"train/{TRAIN}{n}/study1/view1_frontal.jpg" for n in (1, 2)),
                "more/other/patient00002/study2/view1_frontal.jpg",
            ],
            ["patient00001", "patient00002", "patient00002"],
        ),
        (
            {
                "one": f"{NIH}x.png,Mass,1\ny.png,No Finding,2",
                "other": f"{NIH}images\\x.png,Mass,1\nimages\\z.png,Edema,3",
            },
            ["one", "other"],
            {},
            ["one/x.png", "one/y.png", "other/images\\z.png"],
            [1, 2, 3],
        ),
    ],
)
def test_tables_of_the_same_people_and_images(
    tmp_path: Path,
    files: dict[str, str],
    names: list[str],
    fields: dict[str, str],
    ids: list[str],
    people: list[int | str],
) -> None:
    paths = save(tmp_path, files)
    table = joint(*(paths[name] for name in names), **fields)
    assert table.ids == ids
    assert table.patients is not None
    assert table.patients.tolist() == [f"{names[0]}/{patient}" for patient in people]


def test_an_image_that_is_left_out_is_reported(tmp_path: Path) -> None:
    paths = save(tmp_path, MIMIC)
    table = joint(paths[f"{STEM}-chexpert"], paths["lt"])
    assert table.studies is not None
    assert table.studies.tolist() == [f"{STEM}-chexpert/{study}" for study in (501, 502, 501, 504)]
    assert table.targets[:, table.class_names.index("Edema")].tolist() == [1, 0, 0, 0]
    start = f"Warning: 1 of 4 images of {paths['lt']} are left out, as they are "
    assert f"{start}official test images of another CSV." in table.notes
    assert f"{start}in a CSV before it." in table.notes
    first = save(tmp_path, CHEXPERTS)["train"]
    again = save(tmp_path / "again", CHEXPERTS)["train"]
    with pytest.raises(UserError, match=r"all images of .*/again/train\.csv are in another CSV"):
        joint(first, again)


def test_two_lists_of_one_source_know_each_others_labels(tmp_path: Path) -> None:
    files = {
        "a": f"{PADCHEST}1.png,5,s1,PA,['mass']\n2.png,6,s2,PA,['edema']",
        "b": f"{PADCHEST}3.png,7,s3,PA,\"['Edema', 'bulla']\"",
        "c": "ImageID,PatientID,Mass\n4.png,8,1\n5.png,9,0",
    }
    table = joint(*save(tmp_path, files).values())
    nan = np.nan
    bulla, edema, mass = table.targets[:, np.argsort([*map(str.lower, table.class_names)])].T
    np.testing.assert_array_equal(bulla, [0, 0, 1, nan, nan])
    np.testing.assert_array_equal(edema, [0, 1, 1, nan, nan])
    np.testing.assert_array_equal(mass, [1, 0, 0, 1, 0])


def test_a_list_that_names_no_label_of_the_training_is_0_there(tmp_path: Path) -> None:
    files = {
        "t": f"{PADCHEST}1.png,5,s1,PA,['mass']\n2.png,6,s2,PA,['edema']",
        "v": f"{PADCHEST}3.png,7,s3,PA,['mass']\n4.png,8,s4,PA,['bulla']",
        "map": "label,means\nmass,Tumour",
    }
    paths = save(tmp_path, files)
    data = data_config(train_csv=(paths["t"],), val_csv=(paths["v"],), label_map=paths["map"])
    names = gather(data, images=False).class_names
    assert sorted(names) == ["Edema", "Tumour"]
    table = gather(data, validation=True, images=False, labels=names)
    place = names.index("Tumour")
    np.testing.assert_array_equal(table.targets[:, [place, 1 - place]], [[1, 0], [0, 0]])


def test_patients_of_one_name_in_two_plain_tables_are_reported(tmp_path: Path) -> None:
    first, second = two(tmp_path).train_csv
    text = "ImageID,PatientID,Mass\n8.png,9,1\n9.png,7,0"
    more = save(tmp_path, {"x": text, "known": f"{NIH}1.png,Mass,p10", "lt": MIMIC["lt"]})

    def warnings(*csvs: Path) -> list[str]:
        return [note for note in joint(*csvs).notes if "patient name" in note]

    assert warnings(first, second) == [
        f"Warning: 1 patient name is in both {first} and {second} and counts as different "
        "people. If they are the same, put them in one CSV."
    ]
    assert warnings(first, more["x"])[0].startswith("Warning: 2 patient names are in both")
    # the same numbers in tables of two known sources are other people
    assert not warnings(more["lt"], more["known"])


def test_images_without_patients_are_patients_of_their_own(tmp_path: Path) -> None:
    data = two(tmp_path)
    csv = write(tmp_path, "more", "ImageID,Mass\nx.png,1\ny.png,0")
    folders = (*data.train_dir, tmp_path / "more")
    table = gather(replace(data, train_csv=(*data.train_csv, csv), train_dir=folders))
    assert table.patients is not None
    assert table.patients.tolist()[3:] == ["hospital/7", "hospital/8", "more/x.png", "more/y.png"]
    expected = f"Warning: {csv} has no patients, so each of its images counts as one patient."
    assert expected in table.notes
    assert gather(two(tmp_path, patient_column="none")).patients is None


def test_one_file_in_two_csvs_is_refused(tmp_path: Path) -> None:
    data = two(tmp_path)
    csv = write(tmp_path, "again", "ImageID,PatientID,Hernia\nnih/2.png,4,1\nnew.png,5,0")
    (tmp_path / "new.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        folders = (*data.train_dir, folder)
        with pytest.raises(UserError, match=r"'nih/2\.png' and 'again/nih/2\.png' are both .*Keep"):
            gather(replace(data, train_csv=(*data.train_csv, csv), train_dir=folders))
