"""Check of the CSVs: labels, patients, folds and leaks."""

from dataclasses import replace
from functools import partial

import numpy as np

from core.config.training import SplitConfig
from core.data.csv.columns import read_columns
from core.data.images.collection import Images
from core.data.splits.duplicates import joined_patients
from core.data.splits.folds import assign_folds, check_disjoint
from core.data.splits.prepare import strata
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, TRAIN, VAL, Tables, check_copies, check_patients_of_test
from core.errors import UserError, counted, some

_WARNING = "Warning: "


def check_tables(find: Findings, config: Config, split: SplitConfig) -> Tables:
    """Check all CSVs; the tables that could be read, none where --train_csv could not."""
    train = find.look(_read_labels, config)
    if train is None:
        find.unseen("labels, patients, images, folds and leaks need a --train_csv that can be read")
        return {}
    tables = {TRAIN: train}
    find.look(_check_labels, train)
    if config.data.val_csv:
        val = find.look(_read_labels, config, train.class_names)
        if val is not None:
            tables[VAL] = val
            find.look(_check_val, train, val)
    if config.tests:
        test = find.look(_read_test, config, train)
        if test is not None:
            find.look(check_patients_of_test, tables, config)
            tables[TEST] = test
    first = find.look(check_copies, tables)
    if not config.data.val_csv:
        find.look(_check_folds, train, first, split)
    return tables


def _read_labels(
    find: Findings, config: Config, labels: tuple[str, ...] | None = None
) -> LabelTable:
    """The table of --train_csv, or with its `labels` of --val_csv; notes on it are findings.

    It has no paths where images are missing.
    """
    data = config.data
    csvs = ", ".join(map(str, data.train_csv if labels is None else data.val_csv))
    read = partial(gather, data, validation=labels is not None, labels=labels)
    trouble = None
    try:
        table = read()
    except UserError as error:
        # where the CSV is at fault this raises again
        table, trouble = read(images=False), error
    # labels follow with their positives
    facts = [note for note in table.notes if not note.startswith((_WARNING, "Labels ("))]
    find.good(" ".join([f"{csvs}: {counted(len(table), 'image')}.", *facts]))
    for note in table.notes:
        if note.startswith(_WARNING):
            find.doubt(note.removeprefix(_WARNING))
    if trouble is None:
        find.good(f"each image has a file in {', '.join(map(str, data.train_dir))}")
    else:
        remedy = "name their folder by --train_dir, or take the rows of missing images out"
        find.bad(str(trouble), remedy)
    return table


def _check_labels(find: Findings, table: LabelTable) -> None:
    names, known = table.class_names, (~np.isnan(table.targets)).mean(axis=0)
    positives = (table.targets == 1).sum(axis=0)
    counts = [f"{names[c]} {positives[c]:,}" for c in np.argsort(positives, kind="stable")]
    find.good(f"{counted(len(names), 'label')}, by positives: {some(counts, 40)}")
    if (known < 1).any():
        worst = int(known.argmin())
        find.doubt(
            f"{1 - known.mean():.1%} of the labels are unknown and masked, most of {names[worst]} "
            f"({1 - known[worst]:.1%})",
            "--uncertain and --blank say what -1 and blanks mean",
        )
    if table.patients is None:
        find.good("each image counts as another patient's")
        return
    images = np.unique(table.patients, return_counts=True)[1]
    found = f"{counted(len(images), 'patient')} with {images.min()} to {images.max():,} images each"
    if len(images) == len(table) > 1:
        find.doubt(f"{found}: each image is another patient's", "is --patient_column that column?")
    else:
        find.good(found)


def _check_val(find: Findings, train: LabelTable, val: LabelTable) -> None:
    # where images are missing their names are still compared
    tables = (train, val)
    check_disjoint(
        *(one if one.paths else replace(one, images=Images.of_files(one.ids)) for one in tables)
    )
    shared = "no image" if train.patients is None else "no image and no patient"
    find.good(f"{shared} of --val_csv is in --train_csv")


def _read_test(find: Findings, config: Config, train: LabelTable) -> LabelTable:
    csv, folder = config.test_csv, config.test_dir or config.data.train_dir[0]
    is_known = csv is not None and train.id_column in read_columns(csv)
    test = find_images(folder, csv, image_column=train.id_column if is_known else "")
    find.good(f"{csv or folder}: {counted(len(test), 'image')} to predict, each with a file")
    return test


def _check_folds(
    find: Findings, table: LabelTable, first: np.ndarray | None, split: SplitConfig
) -> None:
    """Divide as a training does; without `first`, of images that equal each other, by patient."""
    groups = table.patients if first is None else joined_patients(table.patients, first)
    assignment = assign_folds(strata(table), groups, split.folds, split.seed)
    sizes = np.bincount(assignment, minlength=split.folds)
    about = f"{split.folds} folds of {sizes.min():,} to {sizes.max():,} images"
    # (F, C)
    has = np.array([(table.targets[assignment == f] == 1).any(axis=0) for f in range(split.folds)])
    if not has.any():
        names = some(table.class_names, 12)
        raise UserError(f"no label has a positive: name the label columns by --labels ({names})")
    # labels without any positive are in the notes of the table
    missing = [
        f"{name} in fold {', '.join(map(str, np.flatnonzero(~column) + 1))}"
        for name, column in zip(table.class_names, has.T, strict=True)
        if column.any() and not column.all()
    ]
    if not missing:
        find.good(f"{about}, each with positives of every label")
        return
    find.doubt(
        f"{about}; without a positive, and so not scored: {some(missing, 12)}",
        "give fewer --folds, or read these classes' scores with care",
    )
