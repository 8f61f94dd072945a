"""Check of the CSVs: labels, patients, folds and leaks."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from core.config.training import SplitConfig
from core.data.csv.columns import read_columns
from core.data.splits.duplicates import joined_patients
from core.data.splits.folds import assign_folds
from core.data.splits.prepare import strata
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, check_copies, check_leaks, check_test_leaks, read_patients
from core.errors import UserError, counted, some

_WARNING = "Warning: "


@dataclass(frozen=True)
class Tables:
    """What could be read of the CSVs; without paths where images are missing."""

    train: LabelTable
    val: LabelTable | None = None
    test: LabelTable | None = None

    @property
    def every(self) -> list[LabelTable]:
        """Those that are there and whose images are."""
        return [one for one in (self.train, self.val, self.test) if one is not None and one.paths]


def check_tables(find: Findings, config: Config, split: SplitConfig) -> Tables | None:
    """Check all CSVs; None where --train_csv cannot be read."""
    train = find.look("--train_csv", _read_labels, config)
    if train is None:
        find.unseen("labels, patients, images, folds and leaks need a --train_csv that can be read")
        return None
    find.look("labels", _check_labels, train)
    find.look("patients", _check_patients, train)
    val = test = None
    known = {"--train_csv": train}
    if config.data.val_csv:
        val = find.look("--val_csv", _read_labels, config, train.class_names)
    if val is not None:
        find.look("leaks from --val_csv", check_leaks, train, val)
        known["--val_csv"] = val
    if config.tests:
        test = find.look("--test_csv", _read_test, config, train)
    if test is not None:
        request = config.data.reading.patient_column
        patients = find.look("patients of --test_csv", read_patients, config.test_csv, request)
        for flag, table in known.items():
            find.look(f"leaks to {flag}", check_test_leaks, flag, table, test, patients or set())
        known[TEST] = test
    first = find.look("equal images", check_copies, known)
    if not config.data.val_csv:
        find.look("folds", _check_folds, train, first, split)
    return Tables(train, val, test)


def _read_labels(
    find: Findings, config: Config, labels: tuple[str, ...] | None = None
) -> LabelTable:
    """The table of --train_csv, or with its `labels` of --val_csv; notes on it are findings."""
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
    names, known = table.class_names, (~np.isnan(table.targets)).sum(axis=0)
    positives = (table.targets == 1).sum(axis=0)
    counts = [f"{names[c]} {positives[c]:,}" for c in np.argsort(positives, kind="stable")]
    find.good(f"{counted(len(names), 'label')}, by positives: {some(counts, 40)}")
    if (known < len(table)).any():
        worst = int(known.argmin())
        find.doubt(
            f"{1 - known.sum() / table.targets.size:.1%} of the labels are unknown and masked, "
            f"most of {names[worst]} ({1 - known[worst] / len(table):.1%})",
            "--uncertain and --blank say what -1 and blanks mean",
        )


def _check_patients(find: Findings, table: LabelTable) -> None:
    if table.patients is None:
        find.good("each image counts as another patient's")
        return
    counts = np.unique(table.patients, return_counts=True)[1]
    found = f"{counted(len(counts), 'patient')} with {counts.min()} to {counts.max():,} images each"
    if len(counts) == len(table) > 1:
        find.doubt(f"{found}: each image is another patient's", "is --patient_column that column?")
    else:
        find.good(found)


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
    found = f"{about}; without a positive, and so not scored: {some(missing, 12)}"
    if names := np.array(table.class_names, dtype=object)[has.sum(axis=0) == 1].tolist():
        found += (
            f"; with all positives in one fold, so that the others cannot learn it: {some(names)}"
        )
    find.doubt(found, "give fewer --folds, or read these classes' scores with care")
