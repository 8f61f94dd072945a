"""Folds: whole patients, stratified classes, and the printed summary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.config.data import DataConfig
from core.config.training import SplitConfig
from core.data.images.collection import Images
from core.data.splits.folds import (
    assign_folds,
    check_disjoint,
    describe_empty_classes,
    fold_table,
    lacks_patients,
    write_folds,
)
from core.data.splits.prepare import divide
from core.data.tables.label_table import LabelTable
from core.errors import UserError


def deviations(targets: np.ndarray, assignment: np.ndarray, folds: int) -> np.ndarray:
    """Largest relative deviation of each class's positives from an even share, (C,)."""
    counts = np.stack([(targets[assignment == fold] == 1).sum(0) for fold in range(folds)])
    even = counts.sum(0) / folds
    return np.abs(counts - even).max(0) / even


def some_table(
    ids: list[str], patients: list[str] | None = None, folder: str = "images"
) -> LabelTable:
    return LabelTable(
        ids=ids,
        images=Images.in_folder(folder, ids),
        patients=None if patients is None else np.array(patients, dtype=object),
        targets=np.zeros((len(ids), 1), dtype=np.float32),
        class_names=("Mass",),
    )


@pytest.fixture(scope="module")
def nih(real_data: Path) -> pd.DataFrame:
    return pd.read_csv(real_data / "labels" / "nih_chestxray14.csv.gz", dtype={"PatientID": str})


@pytest.mark.parametrize(("folds", "seed"), [(3, 0), (5, 0), (5, 7), (10, 1)])
def test_nih_patients_are_whole_and_classes_even(nih: pd.DataFrame, folds: int, seed: int) -> None:
    targets = nih.iloc[:, 2:].to_numpy(np.float32)
    assignment = assign_folds(targets, nih["PatientID"].to_numpy(), folds, seed)
    assert set(assignment) == set(range(folds))
    assert nih.assign(fold=assignment).groupby("PatientID")["fold"].nunique().max() == 1
    positives = targets.sum(0)
    found = deviations(targets, assignment, folds)
    # A positive cannot be cut in two: 22 or 23 of 227 in each of ten folds is as even as it gets.
    even = positives / folds
    at_best = np.maximum(np.ceil(even) - even, even - np.floor(even)) / even
    assert found[positives >= 500].max() < 0.01
    assert (found < np.maximum(0.03, at_best + 1e-6)).all()
    sizes = np.bincount(assignment)
    assert np.abs(sizes / sizes.mean() - 1).max() < 0.01


def random_targets(count: int, classes: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.random((count, classes)) < random.random(classes) * 0.3).astype(np.float32)


@pytest.mark.parametrize("patients", [np.arange(300) // 3, None])
def test_a_seed_repeats_and_unknown_counts_as_no_positive(patients: np.ndarray | None) -> None:
    targets = random_targets(300, 4)
    first = assign_folds(targets, patients, 4, 1)
    assert np.array_equal(first, assign_folds(targets, patients, 4, 1))
    assert not np.array_equal(first, assign_folds(targets, patients, 4, 2))
    unknown = np.where(targets == 0, np.nan, targets)
    assert np.array_equal(first, assign_folds(unknown, patients, 4, 1))


@pytest.mark.parametrize("with_patients", [True, False])
def test_the_order_of_rows_changes_no_fold(with_patients: bool) -> None:
    ids = [f"{number:03d}.png" for number in range(120)]
    table = some_table(ids, [str(number // 2) for number in range(120)] if with_patients else None)
    table = replace(table, targets=random_targets(120, 3), class_names=("A", "B", "C"))
    order = np.random.default_rng(3).permutation(120)
    split = SplitConfig(folds=4, seed=1)
    # without paths no copies are looked for
    whole, moved = (
        divide(replace(one, images=Images.of_files([])), DataConfig(), split, lambda _: None)
        for one in (table, table.take(order))
    )
    assert np.array_equal(moved.assignment, whole.assignment[order])
    patients = None if table.patients is None else table.patients
    expected = assign_folds(table.targets, patients, 4, 1)
    assert np.array_equal(whole.assignment, expected)


@pytest.mark.parametrize("with_patients", [True, False])
@pytest.mark.parametrize(
    "targets",
    [random_targets(40, 1), np.zeros((40, 3)), np.ones((40, 3)), random_targets(5, 3)],
    ids=["one class", "no positive", "only positives", "tiny"],
)
def test_every_fold_gets_images_whatever_the_labels(
    targets: np.ndarray, with_patients: bool
) -> None:
    patients = np.arange(len(targets)).astype(str) if with_patients else None
    sizes = np.bincount(assign_folds(targets, patients, 5, 0), minlength=5)
    assert sizes.min() >= max(1, len(targets) // 5 - 2)
    assert sizes.sum() == len(targets)


@pytest.mark.parametrize(
    ("patients", "folds", "sentence"),
    [
        (None, 1, "--folds 1: give at least 2"),
        (None, 7, "--folds 7: there are only 6 images"),
        (["a", "a", "b", "b", "c", "c"], 4, "--folds 4: there are only 3 patients"),
    ],
)
def test_too_few_folds_patients_or_images(
    patients: list[str] | None, folds: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        assign_folds(np.zeros((6, 2)), None if patients is None else np.array(patients), folds)


def test_a_shared_image_or_patient_is_refused_with_count_and_names() -> None:
    train = some_table(["a.png", "b.png", "c.png"], ["1", "2", "3"])
    renamed = replace(some_table(["../x/c.png"]), images=Images.in_folder("images", ["c.png"]))
    check_disjoint(train, some_table(["d.png", "e.png"], ["4", "5"]))
    check_disjoint(some_table(["a.png"]), some_table(["d.png", "e.png"]))
    for val, sentence in (
        (some_table(["d.png"]), r"--val_csv has no patients.*--patient_column none"),
        (
            some_table(["d", "e", "f"], ["2", "3", "9"]),
            r"2 patient\(s\).*: 2, 3\..*place of --val_csv",
        ),
        (some_table(["b.png", "d.png"], folder="val_images"), r"1 image\(s\).*: b\.png\."),
        (renamed, r"1 image\(s\)"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_disjoint(train, val)


def test_the_table_of_folds_counts_what_is_there() -> None:
    targets = np.array([[1, 0], [1, np.nan], [0, 0], [1, 0]], dtype=np.float32)
    text = fold_table(
        targets, np.array([0, 0, 1, 1]), ["Mass", "Hernia"], np.array(["a", "a", "b", "c"])
    )
    assert [line.split() for line in text.splitlines()] == [
        ["fold", "1", "2", "deviation"],
        ["images", "2", "2", "0.0%"],
        ["patients", "1", "2", "33.3%"],
        ["Mass", "2", "1", "33.3%"],
        ["Hernia", "0", "0", "-"],
    ]


def test_the_table_of_many_folds_fits_the_page() -> None:
    targets = np.ones((200_000, 1))
    text = fold_table(targets, np.arange(200_000) % 25, ["Pneumothorax " * 5])
    assert max(map(len, text.splitlines())) <= 100
    assert " 25 " in text


def test_a_class_without_a_positive_in_a_fold_is_named() -> None:
    targets = np.array([[1, 1, 0], [1, 0, 0], [1, np.nan, 0]], dtype=np.float32)
    names = ["Mass", "Hernia", "Fibrosis"]
    message = describe_empty_classes(targets, np.array([0, 1, 2]), names)
    assert (
        "without a positive, and so not scored there: Hernia (fold 2, 3), Fibrosis (any fold); "
        in message
    )
    assert "; give fewer --folds, or read these classes' scores with care" in message
    # of an official split
    assert "--folds" not in describe_empty_classes(targets, np.array([-1, 0, 0]), names)
    assert describe_empty_classes(targets[:1, :1], np.array([0]), names[:1]) == ""


def test_folds_csv_keeps_names_as_text_and_counts_from_one(tmp_path: Path) -> None:
    write_folds(tmp_path / "folds.csv", some_table(["001", "a,b"], ["007", "8"]), np.array([0, 4]))
    text = 'ImageID,PatientID,fold\n001,007,1\n"a,b",8,5\n'
    assert (tmp_path / "folds.csv").read_text() == text
    write_folds(tmp_path / "folds.csv", some_table(["x"]), np.array([1]))
    assert (tmp_path / "folds.csv").read_text() == "ImageID,PatientID,fold\nx,,2\n"


def test_sources_without_patients_are_found_in_a_runs_folds(tmp_path: Path) -> None:
    path, ids = tmp_path / "folds.csv", ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    for patients, expected in (
        (["a/7", "a/7", "b/1.png", "b/2.png"], [False, True]),
        (["a/7", "a/7", "b/9", "b/2.png"], [False, False]),
        (None, [True, True]),
    ):
        write_folds(path, some_table(ids, patients), np.array([0, 1, 0, 1]))
        assert lacks_patients(path, ["a", "b"]) == expected
        assert lacks_patients(path, ["a", "b", "c"])[2] is False
    assert lacks_patients(path, ["t"]) == [True]
    assert lacks_patients(tmp_path / "no.csv", ["t"]) == [False]
