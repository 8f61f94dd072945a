"""Labels that share a cell: NIH's "Mass|Hernia" and PadChest's "['nodule', 'kyphosis']"."""

import gzip
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.tables import LabelTable, read_table
from core.errors import UserError

HERE = Path(__file__).parent
NIH = HERE / "nih" / "Data_Entry_2017_v2020.csv"
PADCHEST = HERE / "padchest" / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def positives(table: LabelTable) -> list[list[str]]:
    return [
        [name for name, value in zip(table.class_names, row, strict=True) if value == 1]
        for row in table.targets
    ]


def test_nih() -> None:
    table = read_table(NIH, None)
    assert table.class_names == (
        *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
        *("Fibrosis", "Hernia", "Infiltration", "Mass", "No Finding", "Nodule"),
        *("Pleural_Thickening", "Pneumonia", "Pneumothorax"),
    )
    assert positives(table) == [
        ["Cardiomegaly"],
        ["Cardiomegaly", "Emphysema"],
        ["No Finding"],
        ["Hernia"],
        ["Hernia", "Mass", "Pleural_Thickening"],
        ["No Finding"],
        ["Infiltration"],
    ]
    # every other label is known to be absent
    assert np.nansum(table.targets == 0) == 7 * 15 - 10
    assert table.ids[0] == "00000001_000.png"
    assert table.id_column == "Image Index"
    assert table.patients is not None
    assert table.patients.tolist() == ["1", "1", "2", "3", "3", "13", "13"]
    assert table.views is not None
    assert table.views.tolist() == ["PA", "PA", "PA", "AP", "AP", "AP", "AP"]
    assert not any("not used" in note for note in table.notes)


def test_nih_agrees_with_its_labels_column_by_column(real_data: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(real_data / "labels" / "nih_chestxray14.csv.gz", dtype=str, nrows=5000)
    names = truth.columns[2:].tolist()
    matrix = truth[names].to_numpy() == "1"
    published = np.array([name.replace("No_Finding", "No Finding") for name in names])
    own = pd.DataFrame(
        {
            "Image Index": truth["ImageID"],
            "Finding Labels": ["|".join(published[row]) for row in matrix],
            "Patient ID": truth["PatientID"],
        }
    )
    own.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", None, published.tolist())
    assert np.array_equal(table.targets, matrix)
    assert table.patients is not None
    assert table.patients.tolist() == truth["PatientID"].tolist()


def test_the_official_test_of_nih_is_in_a_list_beside_the_table(tmp_path: Path) -> None:
    train = read_table(NIH, None, official_split="train")
    assert [name[:8] for name in train.ids] == ["00000001"] * 2 + ["00000002"] + ["00000013"] * 2
    assert any("2 of 7 images, its official test, are left out" in note for note in train.notes)
    test = read_table(NIH, None, official_split="test")
    assert test.ids == ["00000003_000.png", "00000003_001.png"]
    assert positives(test) == [["Hernia"], ["Hernia", "Mass", "Pleural_Thickening"]]
    assert any("2 of 7 images, its official test" in note for note in test.notes)

    alone = shutil.copy(NIH, tmp_path)
    with pytest.raises(
        UserError, match=r"\(there is no test_list.txt beside it\): pass --official"
    ):
        read_table(alone, None, official_split="test")
    told = read_table(alone, None, official_split="train")
    assert len(told) == 7
    assert any("Warning: no official test images" in note for note in told.notes)
    assert not any("no official test" in note for note in read_table(alone, None).notes)


def test_the_lists_of_nih_must_agree(tmp_path: Path) -> None:
    path = Path(shutil.copy(NIH, tmp_path))
    (tmp_path / "test_list.txt").write_text("00000003_000.jpg\n00000003_001.png\n")
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    table = read_table(path, None, official_split="train")
    assert len(table) == 5  # a list of other endings names the same images
    assert any("Warning: 3 image(s)" in note and "in neither" in note for note in table.notes)
    (tmp_path / "train_val_list.txt").write_text("00000003_000.png\n")
    with pytest.raises(UserError, match=r"1 image\(s\) are in .*test_list.txt and in"):
        read_table(path, None)
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a list"):
        read_table(path, None)


def test_an_official_split_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    path = Path(shutil.copy(NIH, tmp_path))
    (tmp_path / "test_list.txt").write_text("x.png\n")
    with pytest.raises(UserError, match=r"leaves none of the 7 images .* are training images"):
        read_table(path, None, official_split="test")
    (tmp_path / "test_list.txt").write_text("\n".join(read_table(NIH, None).ids))
    with pytest.raises(UserError, match=r"leaves none of the 7 images .* are official test images"):
        read_table(path, None, official_split="train")


def test_nih_rows_without_a_label_and_free_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    header = "Image Index,Finding Labels,Patient ID\n"
    path.write_text(f"{header}a.png,Mass,1\nb.png, | ,2\n")
    with pytest.raises(UserError, match=r"row 3 \(the header is row 1\) names no label"):
        read_table(path, None)
    path.write_text(f"{header}a.png,Mass|Patient ID,1\n")
    with pytest.raises(
        UserError, match=r"names the label 'Patient ID', and there is a column .* need"
    ):
        read_table(path, None)
    path.write_text(header + "".join(f"{n}.png,text {n},{n}\n" for n in range(1001)))
    with pytest.raises(UserError, match="1,001 different labels, which looks like free text"):
        read_table(path, None)


def test_padchest(tmp_path: Path) -> None:
    path = tmp_path / f"{PADCHEST.name}.gz"
    path.write_bytes(gzip.compress(PADCHEST.read_bytes()))  # as it is published
    table = read_table(path, None)
    assert table.class_names == (
        *("costal fracture", "crohn's sign", "kyphosis", "nodule", "normal", "pleural effusion"),
    )
    assert positives(table) == [
        ["normal"],
        ["kyphosis", "pleural effusion"],
        ["crohn's sign", "nodule", "pleural effusion"],
        ["costal fracture"],
    ]
    assert table.ids[2] == "113855343774216031107737439268243531979_3k951l.png"
    assert table.patients is not None
    assert table.patients[3] == "50783093527901818115346441867348318648"
    assert table.patients[3] == table.patients[2]
    assert table.studies is not None
    assert table.studies[0] == "20536686640136348236148679891455886468"
    assert table.views is not None
    assert table.views.tolist() == ["PA", "L", "AP_horizontal", "COSTAL"]
    (note,) = [note for note in table.notes if "are left out" in note]
    assert "4 of 8 images" in note
    assert "projection of 2 say 'exclude'" in note
    assert "2 have no label" in note
    assert not any("not used" in note for note in table.notes)
    assert read_table(path, None, views="frontal").ids == [table.ids[0], table.ids[2]]
    assert read_table(path, None, ["nodule"]).targets[:, 0].tolist() == [0, 0, 1, 0]


MISSING = ["nan", "NaN", "None", "NA", "", "<NA>", "null", "N/A"]


@pytest.mark.parametrize("missing", MISSING)
def test_images_without_a_report_are_left_out_and_counted(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "ImageID,PatientID,StudyID,Projection,Labels\na,1,1,PA,['mass']\n"
        f"b,2,2,PA,{missing}\nc,3,3,EXCLUDE,{missing}\nd,4,4,L,\"['mass', 'kyphosis']\"\n"
    )
    table = read_table(path, None)
    assert (table.ids, positives(table)) == (["a", "d"], [["mass"], ["kyphosis", "mass"]])
    assert any("2 of 4 images" in note and "1 have no label" in note for note in table.notes)
    path.write_text(
        f"Image Index,Finding Labels,Patient ID\na,Mass|Hernia,1\nb,{missing},2\n"
        f"c,Mass|{missing},3\nd,No Finding,4\n"
    )
    table = read_table(path, None)
    assert table.ids == ["a", "c", "d"]
    assert positives(table) == [["Hernia", "Mass"], ["Mass"], ["No Finding"]]
    assert any("1 of 4 images" in note and "no label" in note for note in table.notes)
    path.write_text(f"Image Index,Finding Labels,Patient ID\na,{missing},1\n")
    with pytest.raises(UserError, match="no image with a label in column 'Finding Labels'"):
        read_table(path, None, source="nih")


def test_spellings_of_one_label_in_lists_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    cells = ["No Finding", "No_Finding", "no finding", "Pleural Thickening| Mass", "mass|Cavity"]
    rows = [f"{n},{cell},{n}" for n, cell in enumerate([*cells, "cavity|Mass|MASS"])]
    path.write_text("\n".join(["Image Index,Finding Labels,Patient ID", *rows]))
    table = read_table(path, None)
    assert len(table.class_names) == 16
    assert positives(table) == [
        *([["No Finding"]] * 3),
        ["Mass", "Pleural_Thickening"],
        *([["Cavity", "Mass"]] * 2),
    ]
    asked = read_table(path, None, ["No_Finding", "mass"])
    assert asked.targets.tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    assert not any("counts as absent" in note for note in asked.notes)


def test_a_column_named_as_a_label_of_the_lists_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "ImageID,PatientID,StudyID,Projection,Labels,Normal,Report\n"
        "a,1,1,PA,['normal'],0,x\nb,2,2,PA,\"['mass', 'report']\",1,y\n"
    )
    table = read_table(path, None)
    assert positives(table) == [["normal"], ["mass", "report"]]
    for name in ("Normal", "Report"):
        assert any(
            note.startswith(f"Warning: column '{name}'") and "is ignored" in note
            for note in table.notes
        )
    path.write_text(
        "Image Index,Finding Labels,Patient ID,Scoliosis\na,Scoliosis,1,0\nb,Mass,2,1\n"
    )
    assert positives(read_table(path, None)) == [["Scoliosis"], ["Mass"]]


@pytest.mark.parametrize(
    "cell",
    [
        "nodule",
        "['nodule'",
        "'nodule']",
        "['nodule' 'mass']",
        "['nodule',]",
        "[nodule]",
        "['nodule'] + ['mass']",
        "['a\\x41']",
        "[['nodule']]",
        "__import__('os').getcwd()",
        "nan, nan",
    ],
)
def test_a_list_that_does_not_parse_is_refused_with_its_row(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "ImageID,PatientID,StudyID,Projection,Labels\n"
        f"a.png,1,1,PA,['mass']\nb.png,2,2,PA,\"{cell}\"\n"
    )
    with pytest.raises(UserError, match=r"row 3 \(the header is row 1\), column 'Labels'") as error:
        read_table(path, None)
    assert "which is no list" in str(error.value)


def test_hostile_lists_take_no_longer_than_others(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for cell in (
        "[" * 200_000,
        "['a'" + " " * 200_000,
        "[" + "'a'," * 50_000,
        "['" + "\\" * 99_999,
    ):
        path.write_text(f'ImageID,PatientID,Projection,Labels\na.png,1,PA,"{cell}"\n')
        start = time.perf_counter()
        with pytest.raises(UserError, match="which is no list"):
            read_table(path, None)
        assert time.perf_counter() - start < 2


def test_padchest_with_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "ImageID,PatientID,Projection,Labels\na.png,1,EXCLUDE,['mass']\nb.png,2,PA,[]\n"
    )
    with pytest.raises(UserError, match="no image with a label that is not excluded"):
        read_table(path, None)


@pytest.mark.parametrize("name", ["images_001/images/{}", "C:\\images\\{}", "{}"])
@pytest.mark.parametrize("file", ["a.png", "A.PNG", "a.jpg"])
def test_the_official_test_of_nih_is_known_by_the_files_name(
    tmp_path: Path, name: str, file: str
) -> None:
    path = tmp_path / "t.csv"
    named = name.format(file)
    path.write_text(f"Image Index,Finding Labels,Patient ID\n{named},Mass,1\nb.png,Mass,2\n")
    (tmp_path / "test_list.txt").write_text("a.png\n")
    assert read_table(path, None, official_split="train").ids == ["b.png"]
    (tmp_path / "test_list.txt").write_text("c.png\n")
    notes = read_table(path, None, official_split="train").notes
    assert any("test_list.txt names no image of" in note for note in notes)


def test_a_label_that_no_list_names_is_absent_from_every_image() -> None:
    table = read_table(PADCHEST, None, ["nodule", "nodules", "Normal"])
    assert table.class_names == ("nodule", "nodules", "Normal")
    assert np.array_equal(table.targets[:, 1], np.zeros(len(table)))
    assert np.array_equal(table.targets[:, [2]], read_table(PADCHEST, None, ["normal"]).targets)
    assert not any("not used" in note and " normal" in note for note in table.notes)
    assert any("names 'nodules', which counts as absent" in note for note in table.notes)
    assert any("did you mean 'nodule'?" in note for note in table.notes)
    assert any("is positive for nodules," in note for note in table.notes)
    with pytest.raises(UserError, match=r"no label column 'nodul': did you mean 'nodule'\?"):
        read_table(PADCHEST, None, ["nodul"])


def test_labels_that_differ_in_case_are_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["a,1,PA,\"['mass', 'COPD signs']\"", "b,2,PA,\"['Mass', 'x']\"", "c,3,PA,['EXCLUDE']"]
    path.write_text("\n".join(["ImageID,PatientID,Projection,Labels", *rows]) + "\n")
    table = read_table(path, None)
    assert table.class_names == ("COPD signs", "mass", "x")
    assert table.targets.tolist() == [[1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    "columns",
    [
        {"Hospitalised": ["yes", "no"], "Portable": ["no", "yes"]},
        {"downloaded": ["True", "False"], "is_corrupt": ["False", "True"]},
        {"exists": ["1", "1"], "downloaded": ["1", "1"]},
    ],
)
def test_nih_with_columns_about_its_files_is_still_nihs(
    tmp_path: Path, columns: dict[str, list[str]]
) -> None:
    table = {"Image Index": ["a.png", "b.png"], "Finding Labels": ["Mass", "No Finding"]}
    table |= {"Patient ID": ["1", "2"], **columns}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    read = read_table(tmp_path / "t.csv", None)
    assert len(read.class_names) == 15
    assert read.targets[:, read.class_names.index("Mass")].tolist() == [1, 0]


def test_nih_with_one_column_more_is_still_nihs(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    header = "Image Index,Finding Labels,Patient ID,fold,site,remark,"
    path.write_text(f"{header}\na.png,Mass|Hernia,1,0,1,rotated,\nb.png,Mass,2,1,0,,\n")
    table = read_table(path, None)
    assert positives(table) == [["Hernia", "Mass"], ["Mass"]]
    assert any(note.endswith("not used: fold, site, remark.") for note in table.notes)
    path.write_text(path.read_text().replace("remark", "quality").replace("rotated", "1"))
    assert positives(read_table(path, None)) == [["Hernia", "Mass"], ["Mass"]]
