"""Images and patients that several CSVs share, or seem to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.errors import UserError
from tests.helpers.data.two_sources import data_config, two, write

CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema"


def joint(*csvs: Path, **settings: Any) -> LabelTable:
    return gather(data_config(train_csv=csvs, **settings), images=False)


def save(path: Path, *rows: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def mimic(folder: Path) -> Path:
    """Three images of two patients, the last one of the official test."""
    start = folder / "mimic-cxr-2.0.0-"
    save(
        Path(f"{start}metadata.csv"),
        *("dicom_id,subject_id,study_id,ViewPosition", "d1,10,501,PA", "d2,10,502,AP"),
        "d3,11,503,AP",
    )
    save(
        Path(f"{start}split.csv"),
        *("dicom_id,study_id,subject_id,split", "d1,501,10,train", "d2,502,10,train"),
        "d3,503,11,test",
    )
    return save(
        Path(f"{start}chexpert.csv"),
        *("subject_id,study_id,Edema,No Finding", "10,501,1.0,", "10,502,,1.0", "11,503,1.0,"),
    )


def cxr_lt(folder: Path) -> Path:
    """An image of its own, one that MIMIC trains with, and one of MIMIC's official test."""
    rows = [
        f"{name},p{patient},s{study},p/{name}.jpg,{label}"
        for name, patient, study, label in (
            *(("d0", 10, 501, 0), ("d2", 10, 502, 1)),
            *(("d3", 11, 503, 1), ("d4", 12, 504, 0)),
        )
    ]
    return save(folder / "lt.csv", "dicom_id,subject_id,study_id,fpath,Edema", *rows)


def test_mimic_and_cxr_lt_are_the_same_people_and_images(tmp_path: Path) -> None:
    csvs = mimic(tmp_path), cxr_lt(tmp_path)
    table = joint(*csvs)
    name = "mimic-cxr-2.0.0-chexpert"
    assert table.ids == [f"{name}/d1", f"{name}/d2", "lt/d0", "lt/d4"]
    assert table.patients is not None
    assert table.patients.tolist() == [f"{name}/{patient}" for patient in (10, 10, 10, 12)]
    assert table.studies is not None
    assert table.studies.tolist() == [f"{name}/{study}" for study in (501, 502, 501, 504)]
    place = table.class_names.index("Edema")
    assert table.targets[:, place].tolist() == [1, 0, 0, 0]
    start = f"Warning: 1 of 4 images of {csvs[1]} are left out, as they are "
    assert f"{start}official test images of another CSV." in table.notes
    assert f"{start}in a CSV before it." in table.notes
    # whichever is the first; and with the official test what is left of MIMIC is one image
    turned = joint(*csvs[::-1])
    assert turned.ids == ["lt/d0", "lt/d2", "lt/d4", f"{name}/d1"]
    assert turned.patients is not None
    assert turned.patients.tolist() == ["lt/10", "lt/10", "lt/12", "lt/10"]
    every = joint(*csvs[::-1], official_split="all")
    assert every.ids == ["lt/d0", "lt/d2", "lt/d3", "lt/d4", f"{name}/d1"]


def test_padchest_and_cxr_lt_2026_are_the_same_people(tmp_path: Path) -> None:
    first = save(
        tmp_path / "padchest.csv",
        *("ImageID,PatientID,StudyID,Projection,Labels", "a_1.png,5,s1,PA,['mass']"),
        "a_2.png,6,s2,PA,['edema']",
    )
    second = save(
        tmp_path / "own.csv",
        *("ImageID,StudyDate_DICOM,PatientID,Mass", "A_2.png,2014,6,1", "a_3.png,2014,5,0"),
    )
    table = joint(first, second)
    assert table.ids == ["padchest/a_1.png", "padchest/a_2.png", "own/a_3.png"]
    assert table.patients is not None
    assert table.patients.tolist() == ["padchest/5", "padchest/6", "padchest/5"]


def test_two_lists_of_one_source_know_each_others_labels(tmp_path: Path) -> None:
    header = "ImageID,PatientID,StudyID,Projection,Labels"
    csvs = (
        save(tmp_path / "a.csv", header, "1.png,5,s1,PA,['mass']", "2.png,6,s2,PA,['edema']"),
        save(tmp_path / "b.csv", header, "3.png,7,s3,PA,\"['Edema', 'bulla']\""),
        save(tmp_path / "c.csv", "ImageID,PatientID,Mass", "4.png,8,1", "5.png,9,0"),
    )
    table = joint(*csvs)
    nan = np.nan
    found = dict(zip((n.lower() for n in table.class_names), table.targets.T, strict=True))
    np.testing.assert_array_equal(found["mass"], [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(found["edema"], [0, 1, 1, nan, nan])
    np.testing.assert_array_equal(found["bulla"], [0, 0, 1, nan, nan])


def test_two_files_of_chexpert_share_its_people(tmp_path: Path) -> None:
    place = "CheXpert-v1.0-small/train/patient0000"
    first = save(
        tmp_path / "train.csv",
        *(CHEXPERT, f"{place}1/study1/view1_frontal.jpg,F,50,Frontal,AP,,1.0"),
        f"{place}2/study1/view1_frontal.jpg,F,50,Frontal,AP,,0.0",
    )
    second = save(
        tmp_path / "more.csv",
        *(CHEXPERT, "other/patient00002/study2/view1_frontal.jpg,F,50,Frontal,AP,,1.0"),
        "other/patient00001/study1/view1_frontal.jpg,F,50,Frontal,AP,,1.0",
    )
    table = joint(first, second)
    assert table.ids[2:] == ["more/other/patient00002/study2/view1_frontal.jpg"]
    assert table.patients is not None
    assert table.patients.tolist() == [f"train/patient0000{number}" for number in (1, 2, 2)]
    again = save(tmp_path / "again" / "train.csv", *first.read_text().splitlines())
    with pytest.raises(UserError, match=r"all images of .*/again/train\.csv are in another CSV"):
        joint(first, again)


def test_patients_of_one_name_in_two_plain_tables_are_told(tmp_path: Path) -> None:
    data = two(tmp_path)
    csvs = data.train_csv
    told = [note for note in gather(data).notes if "patient name" in note]
    assert told == [
        f"Warning: 1 patient name is in both {csvs[0]} and {csvs[1]} and counts as different "
        "people: put them in one CSV if they are the same."
    ]
    third = save(tmp_path / "x.csv", "ImageID,PatientID,Mass", "8.png,9,1", "9.png,7,0")
    told = [note for note in joint(csvs[0], third).notes if "patient name" in note]
    assert told[0].startswith("Warning: 2 patient names are in both")
    # the same numbers in tables of two known sources are other people
    first = cxr_lt(tmp_path)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender"
    second = save(tmp_path / "nih.csv", f"{header},View Position", "1.png,Mass,0,p10,9,M,PA")
    assert not [note for note in joint(first, second).notes if "patient name" in note]


def test_images_without_patients_are_patients_of_their_own(tmp_path: Path) -> None:
    data = two(tmp_path)
    csv = write(tmp_path, "more", "ImageID,Mass\nx.png,1\ny.png,0")
    folders = (*data.train_dir, tmp_path / "more")
    table = gather(replace(data, train_csv=(*data.train_csv, csv), train_dir=folders))
    assert table.patients is not None
    assert table.patients.tolist()[3:] == ["hospital/7", "hospital/8", "more/x.png", "more/y.png"]
    assert f"Warning: each image of {csv} counts as a patient of its own, as it names none." in (
        table.notes
    )
    assert (
        gather(replace(data, reading=data.reading.change(patient_column="none"))).patients is None
    )


def test_one_file_in_two_csvs_is_refused(tmp_path: Path) -> None:
    data = two(tmp_path)
    csv = write(tmp_path, "again", "ImageID,PatientID,Hernia\nnih/2.png,4,1\nnew.png,5,0")
    (tmp_path / "new.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link", tmp_path / "nih" / ".."):
        folders = (*data.train_dir, folder)
        with pytest.raises(UserError, match=r"'nih/2\.png' and 'again/nih/2\.png' are both .*Keep"):
            gather(replace(data, train_csv=(*data.train_csv, csv), train_dir=folders))


def test_one_folder_may_hold_the_files_of_each(tmp_path: Path) -> None:
    first = write(
        tmp_path, "images", "ImageID,PatientID,Mass\na/1.png,7,1\na/2.png,7,0\nb/1.png,8,0"
    )
    csvs = tmp_path / "one.csv", tmp_path / "two.csv"
    first.rename(csvs[0])
    rows = csvs[0].read_text().splitlines()
    csvs[0].write_text("\n".join(rows[:3]) + "\n")
    csvs[1].write_text("\n".join([rows[0], rows[3]]) + "\n")
    data = data_config(train_csv=csvs, train_dir=(tmp_path / "images",))
    table = gather(data)
    assert table.ids == ["one/a/1.png", "one/a/2.png", "two/b/1.png"]
    assert table.paths == [f"{tmp_path}/images/{name}.png" for name in ("a/1", "a/2", "b/1")]
    csvs[1].write_text("\n".join([rows[0], rows[2]]) + "\n")
    with pytest.raises(
        UserError, match=r"1 image file.*'one/a/2\.png' and 'two/a/2\.png' are both"
    ):
        gather(data)


def test_a_list_that_names_no_label_of_the_training_is_0_there(tmp_path: Path) -> None:
    header = "ImageID,PatientID,StudyID,Projection,Labels"
    train = save(tmp_path / "t.csv", header, "1.png,5,s1,PA,['mass']", "2.png,6,s2,PA,['edema']")
    val = save(tmp_path / "v.csv", header, "3.png,7,s3,PA,['mass']", "4.png,8,s4,PA,['bulla']")
    (tmp_path / "map.csv").write_text("label,means\nmass,Tumour\n")
    data = data_config(train_csv=(train,), val_csv=(val,), label_map=tmp_path / "map.csv")
    names = gather(data, images=False).class_names
    assert sorted(names) == ["Edema", "Tumour"]
    table = gather(data, validation=True, images=False, labels=names)
    place = names.index("Tumour")
    np.testing.assert_array_equal(table.targets[:, place], [1, 0])
    np.testing.assert_array_equal(table.targets[:, 1 - place], [0, 0])


def test_an_image_is_the_same_with_backslashes(tmp_path: Path) -> None:
    header = "Image Index,Finding Labels,Patient ID"
    one = save(tmp_path / "one.csv", header, "x.png,Mass,1", "y.png,No Finding,2")
    other = save(tmp_path / "other.csv", header, "images\\x.png,Mass,1", "images\\z.png,Edema,3")
    table = joint(one, other)
    assert table.ids == ["one/x.png", "one/y.png", "other/images\\z.png"]
