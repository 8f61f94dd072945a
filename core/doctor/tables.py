"""The CSVs: labels, patients, folds, and what is in two of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from core.config.training import SplitConfig
from core.data.csv.columns import read_columns
from core.data.splits.duplicates import joined_patients
from core.data.splits.folds import assign_folds
from core.data.splits.prepare import Prepared, check_training, strata
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, check_copies, check_leaks, check_test_leaks, patients_of
from core.errors import UserError, counted, some

_WARNING = "Warning: "
_TOLD_BELOW = re.compile(
    r"Warning: (no image of .* is (positive|negative) for |.* has no known patient column, |"
    r"neither the CSV nor any DICOM header names a patient, )"
)
_FILES = "name their folder by --train_dir, or take the rows of missing images out of the CSV"


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
    """Look at all CSVs; None where --train_csv cannot be read."""
    train = find.look("--train_csv", _check_training_table, config)
    if train is None:
        find.unseen("labels, patients, images, folds and leaks need a --train_csv that can be read")
        return None
    find.look("labels", _check_labels, train)
    find.look("patients", _check_patients, train, config.data.patient_column)
    val = find.look("--val_csv", _check_validation, config, train) if config.data.val_csv else None
    test = find.look("--test_csv", _check_test, config, train) if config.tests else None
    tables = Tables(train, val, test)
    if val is not None:
        find.look("leaks from --val_csv", check_leaks, train, val)
    known = [("--train_csv", train), *([("--val_csv", val)] if val is not None else [])]
    if test is not None:
        people = find.look("patients of --test_csv", _people, config) or set()
        for flag, table in known:
            find.look(f"leaks to {flag}", check_test_leaks, flag, table, test, people)
        known.append((TEST, test))
    first = find.look("equal images", check_copies, known)
    if not config.data.val_csv:
        find.look("folds", _check_folds, train, first, split)
    return tables


def _check_training_table(find: Findings, config: Config) -> LabelTable:
    csvs = ", ".join(map(str, config.data.train_csv))
    folders = ", ".join(map(str, config.data.train_dir))
    trouble = None
    try:
        table = gather(config.data)
    except UserError as error:
        # where the CSV is at fault this raises anew
        table, trouble = gather(config.data, images=False), error
    notes = [note for note in table.notes if not _told_below(note, len(config.data.train_csv))]
    facts = [note for note in notes if not note.startswith(_WARNING)]
    find.good(" ".join([f"{csvs}: {counted(len(table), 'image')}.", *facts]))
    for note in notes:
        if note.startswith(_WARNING):
            find.doubt(note.removeprefix(_WARNING))
    if trouble is not None:
        find.bad(str(trouble), _FILES)
    else:
        find.good(f"each of the {counted(len(table), 'image')} has a file in {folders}")
    return table


def _told_below(note: str, csvs: int) -> bool:
    """Whether the checks of labels and patients say the same; of several CSVs it says of which."""
    return note.startswith("Labels (") or (csvs == 1 and bool(_TOLD_BELOW.match(note)))


def _check_labels(find: Findings, table: LabelTable) -> None:
    targets, names = table.targets, np.array(table.class_names, dtype=object)
    known, positives = (~np.isnan(targets)).sum(axis=0), (targets == 1).sum(axis=0)
    if not positives.any():
        find.bad(
            f"no label has a positive: nothing can be learnt of {some(list(names), 12)}",
            "look at the label columns, and name them by --labels",
        )
        return
    rarest = np.argsort(positives, kind="stable")
    told = ", ".join(f"{names[place]} {positives[place]:,}" for place in rarest[:40])
    more = f", and {len(names) - 40} more" if len(names) > 40 else ""
    find.good(f"{counted(len(names), 'label')}, by positives: {told}{more}")
    if len(without := names[positives == 0]):
        find.bad(
            f"{counted(len(without), 'label has', 'labels have')} no positive and can neither be "
            f"learnt nor scored: {some(list(without), 12)}",
            "name the others by --labels, or add images",
        )
    if len(always := names[(positives == known) & (positives > 0)]):
        find.doubt(
            f"{counted(len(always), 'label has', 'labels have')} no negative: "
            f"{some(list(always), 12)}",
            "a 0 may have been left blank (--blank zero), or the column is no finding (--labels)",
        )
    if (known < len(targets)).any():
        worst = int(known.argmin())
        find.doubt(
            f"{1 - known.sum() / targets.size:.1%} of the labels are unknown and masked, most of "
            f"{names[worst]} ({1 - known[worst] / len(targets):.1%})",
            "--uncertain and --blank say what -1 and blanks mean",
        )


def _check_patients(find: Findings, table: LabelTable, request: str) -> None:
    if table.patients is None and request.lower() == "none":
        find.good("each image counts as another patient's (--patient_column none)")
        return
    if table.patients is None:
        find.doubt(
            "no column names the patients: images of one patient may be in training and in "
            "validation, which inflates every number",
            "name it by --patient_column, or give --patient_column none if each is another's",
        )
        return
    people, counts = np.unique(table.patients, return_counts=True)
    told = f"{counted(len(people), 'patient')} with {counts.min()} to {counts.max():,} images each"
    if len(people) == len(table) > 1:
        find.doubt(f"{told}: each image is another patient's", "is --patient_column that column?")
    else:
        find.good(told)


def _check_validation(find: Findings, config: Config, train: LabelTable) -> LabelTable:
    trouble = None
    try:
        val = gather(config.data, validation=True, labels=train.class_names)
    except UserError as error:
        val = gather(config.data, validation=True, images=False, labels=train.class_names)
        trouble = error
    empty = np.array(val.class_names, dtype=object)[(val.targets == 1).sum(axis=0) == 0]
    csvs = ", ".join(map(str, config.data.val_csv))
    if trouble is not None:
        find.bad(str(trouble), _FILES)
    else:
        find.good(f"{csvs}: {counted(len(val), 'image')}, each with a file")
    if len(empty):
        find.doubt(
            f"--val_csv has no positive of {some(list(empty), 12)}, which cannot be scored there"
        )
    return val


def _check_test(find: Findings, config: Config, train: LabelTable) -> LabelTable:
    csv, folder = config.test_csv, config.test_dir or config.data.train_dir[0]
    column = ""
    if csv is not None and train.id_column in read_columns(csv):
        column = train.id_column
    test = find_images(folder, csv, image_column=column)
    find.good(f"{csv or folder}: {counted(len(test), 'image')} to predict, each with a file")
    return test


def _people(_: Findings, config: Config) -> set[str]:
    return patients_of(config.test_csv, config.data.patient_column)


def _check_folds(
    find: Findings, table: LabelTable, first: np.ndarray | None, split: SplitConfig
) -> None:
    """Divide as a training does; without `first`, of images that equal each other, by patient."""
    groups = table.patients if first is None else joined_patients(table.patients, first)
    assignment = assign_folds(strata(table), groups, split.folds, split.seed)
    chosen = tuple(range(1, split.folds + 1))
    check_training(Prepared(table, assignment, chosen), None, lambda _: None)
    positives = np.array([(table.targets[assignment == f - 1] == 1).sum(axis=0) for f in chosen])
    # those without any were told before
    unscored = _places(table, (positives == 0) & positives.any(axis=0))
    others = positives.sum(axis=0) - positives
    unlearnt = _places(table, (others == 0) & positives.any(axis=0))
    sizes = np.bincount(assignment, minlength=split.folds)
    about = f"{split.folds} folds of {sizes.min():,} to {sizes.max():,} images"
    if unscored:
        told = f"{about}; without a positive, and so not scored: {some(unscored, 12)}"
        if unlearnt:
            told += (
                f"; with all of its positives, so that the others cannot learn it: {unlearnt[0]}"
            )
            told += f" and {len(unlearnt) - 1} more" if len(unlearnt) > 1 else ""
        find.doubt(told, "give fewer --folds, or read these classes' scores with care")
    else:
        find.good(f"{about}, each with positives of every label")


def _places(table: LabelTable, found: np.ndarray) -> list[str]:
    """ "Hernia in fold 2" for each fold and class of `found`, bool (folds, C)."""
    return [
        f"{name} in fold {', '.join(map(str, np.flatnonzero(column) + 1))}"
        for name, column in zip(table.class_names, found.T, strict=True)
        if column.any()
    ]
