"""Settings and labels that differ between several CSVs."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.config.values import check_together, flat
from core.data.pack.inputs import list_images
from core.data.splits.prepare import PreparedData
from core.data.tables.load import gather
from core.errors import UserError
from tests.helpers.data.two_sources import data_config, write

ONE = "Scan,Who,Exam,Angle,Lung nodule,Mass\n1.png,a,x,PA,-1,\n2.png,a,x,L,0,1\n3.png,b,y,AP,1,0"
OTHER = (
    "Film,Case,Visit,Side,Lung_nodules,Mass\n1.png,p,v,AP,-1,\n2.png,q,v,PA,1,1\n3.png,q,w,L,0,0"
)
EACH = {
    "image_column": ("Scan", "Film"),
    "patient_column": ("Who", "Case"),
    "study_column": ("Exam", "Visit"),
    "view_column": ("Angle", "Side"),
    "uncertain": ("one", "zero"),
    "blank": ("unknown", "zero"),
}


def csvs(folder: Path) -> tuple[Path, Path]:
    return write(folder, "one", ONE), write(folder, "other", OTHER)


def test_each_csv_is_read_with_its_own_settings(tmp_path: Path) -> None:
    table = gather(data_config(train_csv=csvs(tmp_path), **EACH), images=False)
    for known, expected in (
        (table.patients, ["one/a", "one/a", "one/b", "other/p", "other/q", "other/q"]),
        (table.studies, ["one/x", "one/x", "one/y", "other/v", "other/v", "other/w"]),
        (table.views, ["PA", "L", "AP", "AP", "PA", "L"]),
    ):
        assert known is not None
        assert known.tolist() == expected
    nan = np.nan
    assert table.class_names == ("Lung nodule", "Mass", "Lung_nodules")
    of_one, of_other = [[1, nan], [0, 1], [1, 0]], [[0, 0], [1, 1], [0, 0]]
    np.testing.assert_array_equal(table.targets[:3, :2], of_one)
    np.testing.assert_array_equal(table.targets[3:, [2, 1]], of_other)


def test_one_value_is_for_all_and_another_number_is_refused(tmp_path: Path) -> None:
    paths = csvs(tmp_path)
    for name, values in EACH.items():
        data = data_config(train_csv=paths, **EACH | {name: (*values, values[0])})
        with pytest.raises(UserError, match=f"--{name} has 3 values and --train_csv 2"):
            check_together(data)
        check_together(data_config(train_csv=paths, **EACH | {name: values[:1]}))
    data = data_config(train_csv=paths, **EACH | {"uncertain": "zero", "patient_column": "none"})
    table = gather(data, images=False)
    assert table.patients is None
    assert [table.targets[0, 0], table.targets[3, 2]] == [0, 0]
    # as config.json has had it, and has it for several
    assert json.loads(json.dumps(flat(data)))["uncertain"] == "zero"
    assert flat(data)["study_column"] == ["Exam", "Visit"]


def test_a_pack_takes_them_too(tmp_path: Path) -> None:
    paths = csvs(tmp_path)
    reading = data_config(train_csv=paths, **EACH).reading
    assert list_images(tmp_path / "one", paths, reading) == ["1.png", "2.png", "3.png"]


def test_a_blank_setting_of_the_user_overrides_that_of_the_source(tmp_path: Path) -> None:
    chexpert = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema\n" + "".join(
        f"t/patient0000{n}/study1/v.jpg,F,50,Frontal,AP,{n},\n" for n in (0, 1)
    )
    paths = (write(tmp_path, "chexpert", chexpert), write(tmp_path, "other", OTHER))
    given = {"image_column": ("", "Film"), "patient_column": ("", "Case"), "labels": "Edema,Mass"}
    for blank, expected in (("unknown", 0), (("unknown", "zero"), np.nan)):
        table = gather(data_config(train_csv=paths, blank=blank, **given), images=False)
        np.testing.assert_array_equal(table.targets[:2, 0], [expected] * 2)


def test_labels_of_one_source_come_with_the_row_that_joins_them(tmp_path: Path) -> None:
    paths, row = csvs(tmp_path), "Lung nodule,Lung_nodules"
    notes = [
        note
        for note in gather(data_config(train_csv=paths, **EACH), images=False).notes
        if "are not in every CSV" in note
    ]
    assert [note.split(": ")[0] for note in notes] == [
        f"Labels of {path} that are not in every CSV" for path in paths
    ]
    assert "Lung nodule (near Lung_nodules)." in notes[0]
    assert notes[1].endswith(": Lung_nodules (near Lung nodule).")
    assert notes[0].endswith(
        f"give --label_map a CSV with the header label,means and the rows {row}"
    )
    (tmp_path / "map.csv").write_text(f"label,means\n{row}\n")
    table = gather(
        data_config(train_csv=paths, label_map=tmp_path / "map.csv", **EACH), images=False
    )
    assert table.class_names == ("Lung_nodules", "Mass")
    assert table.targets[:, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert not any("are not in every CSV" in note for note in table.notes)


def test_a_source_without_patients_is_named(tmp_path: Path) -> None:
    data = data_config(train_csv=csvs(tmp_path), **EACH | {"patient_column": ("Who", "none")})
    table = gather(data, images=False)
    by_image = PreparedData(table, np.arange(6) % 2, (1, 2)).by_image
    assert by_image == "folds by image: a patient may be on both sides (source other)"
    table = gather(data_config(train_csv=csvs(tmp_path), **EACH), images=False)
    assert PreparedData(table, np.arange(6) % 2, (1, 2)).by_image == ""
