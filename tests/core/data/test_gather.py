"""Several CSVs as one table, held against tables written by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config import SplitConfig
from core.data.gather import gather, source_names
from core.data.prepare import Prepared, prepare
from core.data.split import source_table
from core.data.table import read_table
from core.data_config import DataConfig
from core.errors import UserError

NAN = np.nan
NIH = """
ImageID,PatientID,Effusion,Mass,No_Finding
1.png,7,1,0,0
2.png,7,0,1,0
3.png,9,0,-1,1
"""
HOSPITAL = """
image,subject_id,StudyID,view,mass,Hernia,Pleural effusion,Normal
a/1.png,7,s1,PA,1,0,,0
a/2.png,8,s2,AP,0,1,0,0
"""


def write(folder: Path, name: str, text: str) -> Path:
    """A CSV, and beside it the folder of the images that it names."""
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.strip() + "\n")
    for line in text.strip().splitlines()[1:]:
        image = folder / name / line.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"")
    return path


def two(folder: Path, **more: Any) -> DataConfig:
    csvs = write(folder, "nih", NIH), write(folder, "hospital", HOSPITAL)
    return DataConfig(train_csv=csvs, train_dir=(folder / "nih", folder / "hospital"), **more)


def prepared(data: DataConfig, **split: Any) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(data, SplitConfig(**split), said.append), said


def test_the_joint_table_is_this(tmp_path: Path) -> None:
    table = gather(two(tmp_path))
    assert table.class_names == ("Pleural Effusion", "Mass", "Normal", "Hernia")
    np.testing.assert_array_equal(
        table.targets,
        [
            [1, 0, 0, NAN],
            [0, 1, 0, NAN],
            [0, NAN, 1, NAN],
            [NAN, 1, 0, 0],
            [0, 0, 0, 1],
        ],
    )
    names = ["nih/1.png", "nih/2.png", "nih/3.png", "hospital/a/1.png", "hospital/a/2.png"]
    assert table.ids == names
    assert table.paths == [
        *(f"{tmp_path}/nih/{number}.png" for number in (1, 2, 3)),
        *(f"{tmp_path}/hospital/a/{number}.png" for number in (1, 2)),
    ]
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
    data = two(tmp_path, uncertain="one", study_column="none")
    whole = gather(data)
    alone = gather(replace(data, train_dir=(tmp_path / "nowhere",)), images=False)
    assert alone.paths == []
    assert alone.ids == whole.ids
    np.testing.assert_array_equal(alone.targets, whole.targets)
    assert alone.targets[2, 1] == 1


def test_one_csv_is_as_read_table_has_it(tmp_path: Path) -> None:
    csv = write(tmp_path, "nih", NIH)
    data = DataConfig(train_csv=(csv,), train_dir=(tmp_path / "nih",))
    table, same = gather(data), read_table(csv, tmp_path / "nih")
    assert (table.ids, table.paths) == (same.ids, same.paths)
    assert table.class_names == same.class_names == ("Effusion", "Mass", "No_Finding")
    assert table.notes == same.notes
    assert table.sources is None
    # with a map its labels are renamed, and its images are not
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\nMas,Tumour\n")
    named = gather(replace(data, label_map=tmp_path / "map.csv"))
    assert named.class_names == ("Pleural Effusion", "Tumour", "Normal")
    assert named.ids == same.ids
    np.testing.assert_array_equal(named.targets, same.targets)
    told = [note for note in named.notes if note.startswith("Warning")]
    assert told == [f"Warning: --label_map {tmp_path}/map.csv renames 'Mas', which is in no CSV."]


def test_labels_are_chosen_and_ordered_by_their_names_here(tmp_path: Path) -> None:
    table = gather(two(tmp_path, labels="Hernia, Pleural Effusion"))
    assert table.class_names == ("Hernia", "Pleural Effusion")
    np.testing.assert_array_equal(table.targets, [[NAN, 1], [NAN, 0], [NAN, 0], [0, NAN], [1, 0]])


def test_two_columns_that_are_one_label(tmp_path: Path) -> None:
    csv = write(
        tmp_path,
        "a",
        "\n".join(
            ["ImageID,PatientID,Effusion,Pleural Effusion,Mass"]
            + [f"{n}.png,{n},{cells},0" for n, cells in enumerate(("1,0", "0,0", "0,", "1,", ","))]
        ),
    )
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\n")
    data = DataConfig(
        train_csv=(csv,),
        train_dir=(tmp_path / "a",),
        label_map=tmp_path / "map.csv",
        blank="unknown",
    )
    table = gather(data)
    assert table.class_names == ("Pleural Effusion", "Tumour")
    np.testing.assert_array_equal(table.targets[:, 0], [1, 0, NAN, 1, NAN])
    told = f"Columns Effusion and Pleural Effusion of {csv} are one label, Pleural Effusion"
    assert any(note.startswith(told) for note in table.notes)


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
    assert gather(replace(data, patient_column="none")).patients is None


def test_names_of_sources_are_all_different() -> None:
    paths = [Path("data/nih/train.csv"), Path("data/chexpert/train.csv.gz"), Path("b.csv")]
    assert source_names(paths, [None] * 3) == ["nih-train", "chexpert-train", "b"]
    assert source_names(paths, ["nih", "chexpert", "plain"]) == ["nih", "chexpert", "b"]
    same = [Path("x/a/train.csv"), Path("y/a/train.csv")]
    assert source_names(same, [None] * 2) == ["1-a-train", "2-a-train"]
    assert source_names(same, ["mimic", "mimic"]) == ["1-a-mimic", "2-a-mimic"]


def test_the_table_of_sources_counts_what_is_known(tmp_path: Path) -> None:
    text = source_table(gather(two(tmp_path)))
    rows = [line.split() for line in text.splitlines()]
    assert rows == [
        ["Positives", "of", "the", "known", "labels", "of", "each", "source:"],
        ["nih", "hospital"],
        ["images", "3", "2"],
        ["Pleural", "Effusion", "1", "of", "3", "0", "of", "1"],
        ["Mass", "1", "of", "2", "1", "of", "2"],
        ["Normal", "1", "of", "3", "0", "of", "2"],
        ["Hernia", "-", "1", "of", "2"],
    ]


def test_the_table_of_many_sources_fits_the_page(tmp_path: Path) -> None:
    table = gather(two(tmp_path))
    names = tuple(f"a hospital with a very long name {number}" for number in range(9))
    table = replace(table, source_names=names, sources=np.array([0, 2, 4, 6, 8]))
    assert max(map(len, source_table(table).splitlines())) <= 100


def test_a_label_of_one_source_has_its_prevalence_there(tmp_path: Path) -> None:
    run, said = prepared(two(tmp_path), folds=2)
    known = {"Pleural Effusion": 1 / 4, "Mass": 2 / 4, "Normal": 1 / 5, "Hernia": 1 / 2}
    np.testing.assert_allclose(run.prevalence(), [known[n] for n in run.table.class_names])
    # and without the hospital, which a weight of 0 leaves out of training
    np.testing.assert_allclose(run.prevalence((2, 0)), [1 / 3, 1 / 2, 1 / 3, NAN])
    # patients stay whole
    assert run.assignment[0] == run.assignment[1]
    assert any(text.startswith("Positives of the known labels") for text in said)
    assert "5 images, 4 patients, views (blank) 3, AP 1, PA 1" in said


def test_folds_share_each_source_out(tmp_path: Path) -> None:
    rows = [f"{n}.png,{n},{int(n % 10 == 0)}" for n in range(60)]
    csvs = [
        write(tmp_path, name, "\n".join(["ImageID,PatientID,Mass", *rows[:count]]))
        for name, count in (("a", 60), ("b", 12))
    ]
    data = DataConfig(train_csv=tuple(csvs), train_dir=(tmp_path / "a", tmp_path / "b"))
    run, _ = prepared(data, folds=4)
    assert run.table.sources is not None
    counts = [np.bincount(run.assignment[run.table.sources == s]).tolist() for s in (0, 1)]
    assert counts == [[15] * 4, [3] * 4]


def test_an_official_split_of_each_source(tmp_path: Path) -> None:
    data = two(tmp_path)
    one = "ImageID,PatientID,Pleural_Effusion,Mass,Normal\n3.png,5,1,0,0"
    other = "image,subject_id,Hernia,Pleural effusion,Normal\na/3.png,1,1,1,0"
    val = write(tmp_path / "val", "one", one), write(tmp_path / "val", "two", other)
    (tmp_path / "hospital/a/3.png").write_bytes(b"")
    # the image of the first stays in training no longer
    data.train_csv[0].write_text("\n".join(NIH.strip().splitlines()[:3]) + "\n")
    run, said = prepared(replace(data, val_csv=val))
    assert run.table.class_names == ("Pleural Effusion", "Mass", "Normal", "Hernia")
    assert run.table.ids[-2:] == ["nih/3.png", "hospital/a/3.png"]
    np.testing.assert_array_equal(run.table.targets[-2:], [[1, 0, 0, NAN], [1, NAN, 0, 1]])
    assert run.assignment.tolist() == [-1, -1, -1, -1, 0, 0]
    assert run.table.sources is not None
    assert run.table.sources.tolist() == [0, 0, 1, 1, 0, 1]
    told = "Warning: the --val_csv of source 'hospital' knows nothing of Mass, which is scored on "
    assert told + "the other sources alone." in said
    # those of its --train_csv alone: Mass is positive in one of NIH's two and of the hospital's two
    np.testing.assert_allclose(run.prevalence(), [1 / 3, 2 / 4, 0, 1 / 2])


def test_the_fingerprint_tells_sources_apart(tmp_path: Path) -> None:
    run, _ = prepared(two(tmp_path), folds=2)
    assert run.table.sources is not None
    other = replace(run.table, sources=run.table.sources[::-1])
    assert replace(run, table=other).fingerprint() != run.fingerprint()
    alone = replace(run.table, sources=None, source_names=())
    assert replace(run, table=alone).fingerprint() != run.fingerprint()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"labels": "Mas,Hernia"}, r"no --train_csv has the label 'Mas': did you mean 'Mass'\?"),
        ({"labels": "Effusion"}, "label 'Effusion': by the label map it is called 'Pleural Effus"),
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
    data = DataConfig(train_csv=csvs, train_dir=(tmp_path / "images",))
    table = gather(data)
    assert table.ids == ["one/a/1.png", "one/a/2.png", "two/b/1.png"]
    assert table.paths == [f"{tmp_path}/images/{name}.png" for name in ("a/1", "a/2", "b/1")]
    csvs[1].write_text("\n".join([rows[0], rows[2]]) + "\n")
    with pytest.raises(
        UserError, match=r"1 image file.*'one/a/2\.png' and 'two/a/2\.png' are both"
    ):
        gather(data)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_csv": ()}, "--train_csv names no file"),
        (
            {"train_dir": (Path("a"), Path("b"), Path("c"))},
            "--train_dir has 3 of them and --",
        ),
        ({"train_dir": ()}, "--train_dir has 0 of them"),
        ({"val_csv": (Path("v"),)}, "--val_csv has 1 of them and --train_csv 2"),
        ({"source": ("nih",)}, "--source has 1 of them and --train_csv 2"),
    ],
)
def test_lists_that_do_not_belong_together(settings: dict[str, Any], sentence: str) -> None:
    csvs: dict[str, Any] = {"train_csv": (Path("x.csv"), Path("y.csv"))}
    with pytest.raises(UserError, match=sentence):
        DataConfig(**csvs | settings)
    assert DataConfig(**csvs).train_dir == (Path("data/images"),)
