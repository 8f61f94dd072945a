"""Labels of several CSVs as one table, against tables written by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.tables import LabelReading, read_table
from core.data.tables.load import gather, source_names
from core.errors import UserError
from tests.helpers.data.two_sources import NIH, data_config, two, write

NAN = np.nan


def test_the_joint_table_is_this(tmp_path: Path) -> None:
    table = gather(two(tmp_path))
    assert table.class_names == ("Pleural Effusion", "Mass", "Normal", "Hernia")
    of_nih, of_hospital = [[1, 0, 0, NAN], [0, 1, 0, NAN], [0, NAN, 1, NAN]], [[NAN, 1, 0, 0]]
    np.testing.assert_array_equal(table.targets, [*of_nih, *of_hospital, [0, 0, 0, 1]])
    names = ["nih/1.png", "nih/2.png", "nih/3.png", "hospital/a/1.png", "hospital/a/2.png"]
    assert table.ids == names
    assert table.paths == [f"{tmp_path}/{name}" for name in names]
    # patient 7 of one source is another one than patient 7 of the other
    assert table.patients is not None
    assert table.patients.tolist() == ["nih/7", "nih/7", "nih/9", "hospital/7", "hospital/8"]
    assert table.studies is None
    assert table.views is not None
    assert table.views.tolist() == ["", "", "", "PA", "AP"]
    assert table.sources is not None
    assert table.sources.tolist() == [0, 0, 0, 1, 1]
    assert table.source_names == ("nih", "hospital")
    renamed = f"Labels of {tmp_path}/nih.csv by the label map: Effusion is Pleural Effusion, "
    assert renamed + "No_Finding is Normal." in table.notes


def test_labels_alone_are_the_same(tmp_path: Path) -> None:
    data = two(tmp_path, uncertain="one", labels="Hernia, Mass, Pleural Effusion")
    whole = gather(data)
    alone = gather(replace(data, train_dir=(tmp_path / "nowhere",)), images=False)
    assert alone.paths == []
    assert alone.ids == whole.ids
    assert alone.class_names == ("Hernia", "Mass", "Pleural Effusion")
    np.testing.assert_array_equal(alone.targets, whole.targets)
    np.testing.assert_array_equal(alone.targets[:3, :2], [[NAN, 0], [NAN, 1], [NAN, 1]])


def test_one_csv_is_as_read_table_has_it(tmp_path: Path) -> None:
    csv = write(tmp_path, "nih", NIH)
    data = data_config(train_csv=(csv,), train_dir=(tmp_path / "nih",))
    table, same = gather(data), read_table(csv, tmp_path / "nih")
    assert (table.ids, table.paths) == (same.ids, same.paths)
    assert table.class_names == same.class_names == ("Effusion", "Mass", "No_Finding")
    assert table.notes == same.notes
    assert table.sources is None
    # with a map its labels are renamed, and its images are not
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\nMas,Tumour\n")
    named = gather(replace(data, reading=data.reading.change(label_map=tmp_path / "map.csv")))
    assert named.class_names == ("Pleural Effusion", "Tumour", "Normal")
    assert named.ids == same.ids
    np.testing.assert_array_equal(named.targets, same.targets)
    warnings = [note for note in named.notes if note.startswith("Warning")]
    assert warnings == [f"Warning: 'Mas' of --label_map {tmp_path}/map.csv is in no CSV."]


def test_a_reading_is_one_object_or_its_fields(tmp_path: Path) -> None:
    csv = write(tmp_path, "a", "ImageID,person,Derrame\na.png,1,-1\nb.png,2,0\nc.png,2,1")
    (tmp_path / "map.csv").write_text("label,means\nDerrame,Effusion\n")
    fields: dict[str, Any] = {"patient_column": "person", "label_map": tmp_path / "map.csv"}
    given = LabelReading(uncertain="one", **fields)
    for table in (
        read_table(csv, None, reading=given),
        read_table(csv, None, None, LabelReading(uncertain="zero"), uncertain="one", **fields),
    ):
        assert table.class_names == ("Pleural Effusion",)
        assert table.targets[:, 0].tolist() == [1, 0, 1]
        assert table.patients is not None
    for wrong, sentence in (
        ({"uncertian": "one"}, "no 'uncertian': did you mean 'uncertain'"),
        ({"uncertain": "two"}, "no --uncertain 'two'; it has ignore, zero, one"),
        ({"source": ("nih", "plain")}, "--source has 2 values for one CSV"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_table(csv, None, **wrong)


def test_two_columns_that_are_one_label(tmp_path: Path) -> None:
    header = "ImageID,PatientID,Effusion,Pleural Effusion,Mass"
    rows = [f"{n}.png,{n},{cells},0" for n, cells in enumerate(("1,0", "0,0", "0,", "1,", ","))]
    csv = write(tmp_path, "a", "\n".join([header, *rows]))
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\n")
    table = read_table(csv, None, label_map=tmp_path / "map.csv", blank="unknown")
    assert table.class_names == ("Pleural Effusion", "Tumour")
    np.testing.assert_array_equal(table.targets[:, 0], [1, 0, NAN, 1, NAN])
    expected = f"Columns Effusion and Pleural Effusion of {csv} are merged into Pleural Effusion"
    assert any(note.startswith(expected) for note in table.notes)


def test_a_blank_means_what_its_source_defines(tmp_path: Path) -> None:
    rows = [
        f"train/patient0000{n}/study1/view1_frontal.jpg,Frontal,AP,,{edema}\n"
        for n, edema in ((1, "1"), (2, ""), (3, ""))
    ]
    csv, own = tmp_path / "chexpert.csv", tmp_path / "own.csv"
    csv.write_text(f"Path,Frontal/Lateral,AP/PA,No Finding,Edema\n{''.join(rows)}")
    own.write_text("ImageID,PatientID,Edema\na.png,a,1\nb.png,b,\nc.png,c,\n")
    # the user's setting holds for one CSV alone
    for csvs, blank, targets, expected in (
        (
            (own, csv),
            "unknown",
            [1, NAN, NAN, 1, 0, 0],
            f"--blank unknown is not applied to {csv}, which keeps its usual meaning of blanks "
            "(zero).",
        ),
        (
            (csv,),
            "unknown",
            [1, NAN, NAN],
            f"Warning: a blank label of {csv} means unknown by --blank; the default there is zero.",
        ),
    ):
        table = gather(data_config(train_csv=csvs, blank=blank, labels="Edema"), images=False)
        np.testing.assert_array_equal(table.targets[:, 0], targets)
        assert expected in table.notes
        assert sum("--blank says" in note for note in table.notes) == expected.count("--blank says")


def test_columns_that_differ_in_punctuation_alone_are_refused(tmp_path: Path) -> None:
    csv = write(tmp_path, "a", "ImageID,PatientID,Grade+,Grade-,Mass\n1.png,1,1,0,0\n2.png,2,0,1,1")
    other = write(tmp_path, "b", "ImageID,PatientID,Mass\n1.png,1,1\n2.png,2,0")
    data = data_config(train_csv=(csv, other), train_dir=(tmp_path / "a", tmp_path / "b"))
    expected = rf"columns 'Grade\+' and 'Grade-' of {csv} differ only in case or punctuation"
    with pytest.raises(UserError, match=expected) as refused:
        gather(data)
    assert "a row 'Grade-,Grade-' in a --label_map" in str(refused.value)
    (tmp_path / "map.csv").write_text("label,means\nGrade-,Grade-\n")
    mapped = replace(data, reading=data.reading.change(label_map=tmp_path / "map.csv"))
    assert gather(mapped).class_names == ("Grade-", "Mass")
    assert gather(replace(data, labels="Mass")).class_names == ("Mass",)


def test_names_of_sources_are_all_different() -> None:
    paths = [Path("data/nih/train.csv"), Path("data/chexpert/train.csv.gz"), Path("b.csv")]
    assert source_names(paths, [None] * 3) == ["nih-train", "chexpert-train", "b"]
    assert source_names(paths, ["nih", "chexpert", "plain"]) == ["nih", "chexpert", "b"]
    same = [Path("x/a/train.csv"), Path("y/a/train.csv")]
    assert source_names(same, [None] * 2) == ["1-a-train", "2-a-train"]
    assert source_names(same, ["mimic", "mimic"]) == ["1-a-mimic", "2-a-mimic"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"labels": "Mas,Hernia"}, r"no --train_csv has the label 'Mas': did you mean 'Mass'\?"),
        ({"labels": "Effusion"}, "label 'Effusion': the label map renames it to 'Pleural Effus"),
        ({"labels": "Mass,mass"}, "--labels names one label as Mass and as mass"),
        ({"labels": "Hernia"}, r"nih\.csv has none of the labels Hernia: leave this CSV out"),
        ({"source": ("plain", "nihh")}, "there is no --source 'nihh'"),
    ],
)
def test_what_is_asked_of_the_joint_table(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        gather(two(tmp_path, **settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_csv": ()}, "--train_csv names no file"),
        ({"train_dir": (Path("a"),) * 3}, "--train_dir has 3 values and --"),
        ({"val_csv": (Path("v"),)}, "--val_csv has 1 value and --train_csv 2"),
        ({"source": ("nih",)}, "--source has 1 value and --train_csv 2"),
    ],
)
def test_lists_that_do_not_belong_together(settings: dict[str, Any], sentence: str) -> None:
    csvs: dict[str, Any] = {"train_csv": (Path("x.csv"), Path("y.csv"))}
    with pytest.raises(UserError, match=sentence):
        data_config(**csvs | settings).check()
    assert data_config(**csvs).train_dir == (Path("data/images"),)
