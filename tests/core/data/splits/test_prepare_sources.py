"""Folds, prevalences and counts of several sources, against values by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config.data import DataConfig
from core.config.training import SplitConfig
from core.data.splits.folds import source_table
from core.data.splits.prepare import PreparedData, prepare
from core.data.tables.load import gather
from core.errors import UserError
from tests.helpers.data.two_sources import NIH, two, write

NAN = np.nan


def prepared(
    data: DataConfig, source_weights: tuple[float, ...] = (), **split: Any
) -> tuple[PreparedData, list[str]]:
    said: list[str] = []
    return prepare(data, SplitConfig(**split), said.append, source_weights), said


def test_a_label_of_one_source_has_its_prevalence_there(tmp_path: Path) -> None:
    run, said = prepared(two(tmp_path), folds=2)
    known = {"Pleural Effusion": 1 / 4, "Mass": 2 / 4, "Normal": 1 / 5, "Hernia": 1 / 2}
    np.testing.assert_allclose(run.prevalence(), [known[n] for n in run.table.class_names])
    # and without the hospital, which a weight of 0 leaves out of training
    np.testing.assert_allclose(run.prevalence((2, 0)), [1 / 3, 1 / 2, 1 / 3, NAN])
    # patients stay whole
    assert run.assignment[0] == run.assignment[1]
    assert run.table.sources is not None
    other = replace(run, table=replace(run.table, sources=run.table.sources[::-1]))
    assert other.fingerprint() != run.fingerprint()
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
    expected = "Warning: the --val_csv of source 'hospital' has no labels of Mass, scored on "
    assert expected + "the other sources only." in said
    # those of its --train_csv alone: Mass is positive in one of NIH's two and of the hospital's two
    np.testing.assert_allclose(run.prevalence(), [1 / 3, 2 / 4, 0, 1 / 2])


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


def test_a_class_that_is_never_trained_is_not_scored(tmp_path: Path) -> None:
    run, said = prepared(two(tmp_path), (1, 0), folds=2)
    assert run.table.class_names == ("Pleural Effusion", "Mass", "Normal")
    assert run.table.targets.shape == (5, 3)
    assert run.prevalence((1, 0)).tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 3])
    expected = "Warning: Hernia: labelled only in sources with a weight of 0 in --source_weights"
    assert sum(text.startswith(expected) for text in said) == 1
    # Mass of NIH has its one positive in one fold, where the hospital's teaches nothing
    fold = 1 + run.assignment[1]
    assert (
        f"Warning: Mass has no positive in the training part of fold {fold}, so that it cannot be "
        "learnt there."
    ) in said
    assert prepared(two(tmp_path), (1, 0.5), folds=2)[0].table.class_names[-1] == "Hernia"


def test_weights_that_leave_nothing_to_learn_are_refused(tmp_path: Path) -> None:
    data = two(tmp_path)
    other = write(tmp_path, "other", "ImageID,PatientID,Fracture\n1.png,1,1\n2.png,2,0")
    folders = (*data.train_dir, tmp_path / "other")
    data = replace(data, train_csv=(*data.train_csv, other), train_dir=folders)
    with pytest.raises(UserError, match=r"'other' has a weight of 0 .*: leave its CSV out"):
        prepared(data, (1, 1, 0), folds=2)
