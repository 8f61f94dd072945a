"""Folds that keep a patient together and give every class its share of positives."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first
from core.io.atomic import write_atomically
from core.io.untrusted_files import check_regular

PAGE_WIDTH = 100
MOST_FOLDS = 1000


def assign_folds(
    targets: np.ndarray, patients: np.ndarray | None = None, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """The fold of each image, (N,) int from 0 to folds - 1, from targets (N, C).

    Each class's positives and the images are spread evenly (without patients by iterative
    stratification, Sechidis 2011); an unknown target (NaN) counts as no positive. With `patients`
    (N,) all images of a patient are in one fold. Reproducible for a seed. Raises UserError for
    fewer than two folds, and for fewer patients (images) than folds.
    """
    if folds < 2:
        raise UserError(f"--folds {folds}: at least two are needed, one to train on, one to test.")
    positives = np.asarray(targets) == 1  # (N, C), False for NaN
    if patients is None:
        units, what = len(positives), "images"
    else:
        owners, people = pd.factorize(np.asarray(patients))
        units, what = len(people), "patients"
    if units < folds:
        raise UserError(f"--folds {folds}: there are only {units} {what}; ask for fewer folds.")
    if patients is not None:
        return _assign_patients(positives, owners, folds, seed)[owners]
    # late: it takes seconds
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
    assignment = np.empty(units, dtype=np.int64)
    # It refuses a single class; the complement makes two of it, and says nothing new.
    labels = positives if positives.shape[1] > 1 else np.hstack([positives, ~positives])
    for fold, (_, members) in enumerate(splitter.split(positives, labels)):
        assignment[members] = fold
    return assignment


def _assign_patients(
    positives: np.ndarray, owners: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Greedy: the patients with the largest share of the labels first, each to the fold where the
    sum of squared relative deviations from an even share grows least."""
    count = int(owners.max()) + 1
    columns = [*positives.T, np.ones(len(positives), dtype=bool)]
    # of each class's positives, of the images
    shares = np.stack([np.bincount(owners, column, count) for column in columns], axis=1)
    shares = shares / np.maximum(shares.sum(axis=0), 1)
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    order = order[np.argsort(-shares[order, :-1].sum(axis=1), kind="stable")]
    # All folds have the same aim, so |load + share|² - |load|² is least where load · share is.
    load = np.zeros((folds, shares.shape[1]))
    chosen = []
    # in the order of use: a table that is larger than the caches is then read once, from end to end
    for share in shares[order]:
        fold = int((load @ share).argmin())
        load[fold] += share
        chosen.append(fold)
    fold_of = np.empty(count, dtype=np.int64)
    fold_of[order] = chosen
    # Where no two patients are alike, the order leaves nothing to the seed.
    return random.permutation(folds)[fold_of]


def assign_by_name(
    table: LabelTable,
    groups: np.ndarray | None,
    assign: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
) -> np.ndarray:
    """What `assign` gives each image, (N,), whatever the order of rows: they are divided by name.

    `assign` takes targets (N, C) and groups (N,) that it may not divide.
    """
    order = np.argsort(np.asarray(table.ids, dtype=str), kind="stable")
    assignment = np.empty(len(table), dtype=np.int64)
    assignment[order] = assign(strata(table)[order], None if groups is None else groups[order])
    return assignment


def strata(table: LabelTable) -> np.ndarray:
    """What is spread evenly over the folds: the labels, and where there are several the sources."""
    if table.sources is None:
        return table.targets
    of_source = table.sources[:, None] == np.arange(len(table.source_names))
    return np.concatenate([table.targets, of_source.astype(np.float32)], axis=1)


def check_disjoint(train: LabelTable, val: LabelTable) -> None:
    """Raise UserError where an image, or else a patient, is in both the training and --val_csv."""
    seen = {*train.ids, *train.paths}
    pairs = zip(val.ids, val.paths, strict=True)
    if images := [name for name, path in pairs if name in seen or path in seen]:
        raise UserError(
            f"{len(images):,} image(s) of --val_csv are in --train_csv too: {list_first(images)}. "
            "Take them out of one of the two, or leave --val_csv out and let --folds split."
        )
    if (train.patients is None) != (val.patients is None):
        without = "--val_csv" if val.patients is None else "--train_csv"
        raise UserError(
            f"{without} names no patients and the other file does, so that shared patients cannot "
            "be found: add the column, or give --patient_column none to go without that check."
        )
    theirs = () if train.patients is None else train.patients
    if patients := sorted(set(theirs) & set(() if val.patients is None else val.patients)):
        raise UserError(
            f"{len(patients):,} patient(s) of --val_csv are in --train_csv too: "
            f"{list_first(patients)}. Their images inflate every number: take them out of one of "
            "the two, or leave "
            "--val_csv out and let --folds split."
        )


def fold_table(
    targets: np.ndarray,
    assignment: np.ndarray,
    class_names: Sequence[str],
    patients: np.ndarray | None = None,
) -> str:
    """Positives by class and fold, for printing: lines of at most 100 characters.

    From targets (N, C), folds (N,) and perhaps patients (N,). The last column is the largest
    relative deviation of a fold from an even share; folds count from 1.
    """
    table = count_table(targets, assignment, class_names, patients)
    table = table.set_axis(range(1, len(table.columns) + 1), axis=1)
    cells = table.map("{:,}".format)
    # 0 / 0 where a class has no positive
    deviations = table.div(table.mean(axis=1), axis=0).sub(1).abs().max(axis=1)
    cells["deviation"] = ["-" if np.isnan(one) else f"{one:.1%}" for one in deviations]
    return cells.rename_axis(columns="fold").to_string(line_width=PAGE_WIDTH)


def count_table(
    targets: np.ndarray,
    assignment: np.ndarray,
    class_names: Sequence[str],
    patients: np.ndarray | None = None,
) -> pd.DataFrame:
    """Images, patients (where known) and each class's positives, in rows, by fold (from 0).

    From targets (N, C), folds (N,) and perhaps patients (N,).
    """
    folds = int(assignment.max()) + 1
    names = ["images", *class_names]
    rows = [np.bincount(assignment, minlength=folds), *_positives(targets, assignment).T]
    if patients is not None:
        owned = pd.DataFrame({"fold": assignment, "patient": patients}).drop_duplicates()
        names.insert(1, "patients")
        rows.insert(1, np.bincount(owned["fold"], minlength=folds))
    return pd.DataFrame(rows, index=[name[:30] for name in names], columns=range(folds))


def source_table(table: LabelTable) -> str:
    """Of each label the positives among the known labels of each source, for printing.

    Lines of at most 100 characters; "-" where a source does not know the label.
    """
    assert table.sources is not None
    cells: dict[str, list[str]] = {}
    for source, name in enumerate(table.source_names):
        rows = table.sources == source
        targets = table.targets[rows]
        known, positives = (~np.isnan(targets)).sum(axis=0), (targets == 1).sum(axis=0)
        cells[name] = [f"{rows.sum():,}"] + [
            f"{one:,} of {all_known:,}" if all_known else "-"
            for one, all_known in zip(positives, known, strict=True)
        ]
    names = [name[:30] for name in ("images", *table.class_names)]
    frame = pd.DataFrame(cells, index=names).rename(columns=lambda name: name[:20])
    title = "Positives of the known labels of each source:"
    return f"{title}\n{frame.to_string(line_width=PAGE_WIDTH)}"


def _positives(targets: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Positives by fold and class, (folds, C) int."""
    folds = range(assignment.max() + 1)
    return np.array([(targets[assignment == fold] == 1).sum(axis=0) for fold in folds])


def describe_empty_classes(
    targets: np.ndarray, assignment: np.ndarray, class_names: Sequence[str]
) -> str:
    """A sentence about the classes without a positive in some fold (from 1), or ""."""
    positives = _positives(targets, assignment)
    missing = []
    for name, counts in zip(class_names, positives.T, strict=True):
        if empty := (np.flatnonzero(counts == 0) + 1).tolist():
            where = "any fold" if len(empty) == len(counts) else f"fold {list_first(empty, 20)}"
            missing.append(f"{name} ({where})")
    if not missing:
        return ""
    remedy = "give fewer --folds, or " if len(positives) > 1 else ""
    return (
        f"Warning: without a positive, and so not scored there: {list_first(missing, 40)}; "
        f"{remedy}read these classes' scores with care."
    )


def write_folds(path: Path, table: LabelTable, assignment: np.ndarray) -> None:
    """Write ImageID,PatientID (blank without patients),fold (from 1; 0: never validated)."""
    patients = "" if table.patients is None else table.patients
    frame = pd.DataFrame({"ImageID": table.ids, "PatientID": patients, "fold": assignment + 1})
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False))


def read_folds(path: Path, table: LabelTable) -> np.ndarray | None:
    """The fold of each image, (N,) int from 0, or None where `path` is not of these images."""
    try:
        check_regular(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        same = frame["ImageID"].tolist() == list(table.ids)
        folds = frame["fold"].to_numpy().astype(np.int64)
        # with an official split 0 is never validated; more folds no run has
        usable = same and folds.min() >= 0 and folds.max() <= MOST_FOLDS
        return folds - 1 if usable else None
    except (OSError, ValueError, KeyError, OverflowError):
        return None


def lacks_patients(path: Path, sources: Sequence[str]) -> list[bool]:
    """Of each source whether a folds.csv names none of its patients; False where it has no row.

    An image of several sources is named SOURCE/IMAGE, and where they name patients it is its own.
    """
    try:
        check_regular(path)
        columns = ["ImageID", "PatientID"]
        frame = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return [False] * len(sources)
    images, patients = (frame[name] for name in columns)
    is_named = (patients != "") & (patients != images)
    found = []
    for source in sources:
        own = images.str.startswith(f"{source}/" if len(sources) > 1 else "")
        found.append(bool(own.any()) and not is_named[own].any())
    return found
