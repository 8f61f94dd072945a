"""Patient-disjoint, stratified folds: assignment, checks, tables and folds.csv."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable
from core.errors import UserError, escape_control, list_first
from core.io.atomic import write_atomically
from core.io.untrusted_files import check_regular

PAGE_WIDTH = 100
MOST_FOLDS = 1000


def assign_folds(
    targets: np.ndarray, patients: np.ndarray | None = None, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Assign a fold to each image, (N,) int from 0 to folds - 1, from targets (N, C).

    Positives of each class and images are spread evenly (without patients by iterative
    stratification, Sechidis 2011); unknown targets (NaN) are not positive. With `patients` (N,) all
    images of a patient are in one fold. Reproducible for a seed. Raises UserError for fewer than
    two folds, and for fewer patients (images) than folds.
    """
    if folds < 2:
        raise UserError(f"--folds {folds}: give at least 2, one to train on and one to validate.")
    positives = np.asarray(targets) == 1  # (N, C), False for NaN
    if patients is None:
        units, what = len(positives), "images"
    else:
        owners, people = pd.factorize(np.asarray(patients))
        units, what = len(people), "patients"
    if units < folds:
        raise UserError(f"--folds {folds}: there are only {units} {what}; give fewer folds.")
    if patients is not None:
        return _assign_patients(positives, owners, folds, seed)[owners]
    # the import takes seconds
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
    assignment = np.empty(units, dtype=np.int64)
    # the library rejects a single class; its complement adds no information
    labels = positives if positives.shape[1] > 1 else np.hstack([positives, ~positives])
    for fold, (_, members) in enumerate(splitter.split(positives, labels)):
        assignment[members] = fold
    return assignment


def _assign_patients(
    positives: np.ndarray, owners: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Greedy assignment of patients, those with the largest share of the labels first.

    Each one gets the fold in which the sum of squared relative deviations from an even share grows
    least.
    """
    count = int(owners.max()) + 1
    columns = [*positives.T, np.ones(len(positives), dtype=bool)]
    # each patient's share of each class's positives, and of the images
    shares = np.stack([np.bincount(owners, column, count) for column in columns], axis=1)
    shares = shares / np.maximum(shares.sum(axis=0), 1)
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    order = order[np.argsort(-shares[order, :-1].sum(axis=1), kind="stable")]
    # all folds have the same target, so |load + share|² - |load|² is least where load · share is
    load = np.zeros((folds, shares.shape[1]))
    chosen = []
    # sorted first, so that memory is read sequentially
    for share in shares[order]:
        fold = int((load @ share).argmin())
        load[fold] += share
        chosen.append(fold)
    fold_of = np.empty(count, dtype=np.int64)
    fold_of[order] = chosen
    # if all patients differ, the order does not depend on the seed
    return random.permutation(folds)[fold_of]


def assign_by_name(
    table: LabelTable,
    groups: np.ndarray | None,
    assign: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
) -> np.ndarray:
    """Result of `assign` for the images sorted by name, (N,) in the table's order.

    `assign` takes targets (N, C) and groups (N,) that stay together.
    """
    order = np.argsort(np.asarray(table.ids, dtype=str), kind="stable")
    assignment = np.empty(len(table), dtype=np.int64)
    assignment[order] = assign(strata(table)[order], None if groups is None else groups[order])
    return assignment


def strata(table: LabelTable) -> np.ndarray:
    """Targets to stratify by, (N, C): the labels, and one-hot sources if there are several."""
    targets = table.binary_targets
    if table.sources is None or len(present := np.unique(table.sources)) < 2:
        return targets
    of_source = table.sources[:, None] == present
    return np.concatenate([targets, of_source.astype(np.float32)], axis=1)


def check_disjoint(train: LabelTable, val: LabelTable) -> None:
    """Raise UserError if an image or a patient is in both --train_csv and --val_csv."""
    seen = {*train.ids, *train.paths}
    pairs = zip(val.ids, val.paths, strict=True)
    if images := [name for name, path in pairs if name in seen or path in seen]:
        raise UserError(
            f"{len(images):,} image(s) of --val_csv are in --train_csv too: {list_first(images)}. "
            "Remove them from one of the two, or use --folds in place of --val_csv."
        )
    if (train.patients is None) != (val.patients is None):
        without = "--val_csv" if val.patients is None else "--train_csv"
        raise UserError(
            f"{without} has no patients and the other file does, so shared patients cannot be "
            "found: add the column, or pass --patient_column none to skip this check."
        )
    theirs = () if train.patients is None else train.patients
    if patients := sorted(set(theirs) & set(() if val.patients is None else val.patients)):
        raise UserError(
            f"{len(patients):,} patient(s) of --val_csv are in --train_csv too: "
            f"{list_first(patients)}. Their images inflate every score: remove them from one of "
            "the two, or use --folds in place of --val_csv."
        )


def count_positives(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positives, known labels) of each class, (C,), from targets (N, C).

    Positives are int; float64 sums if there are soft targets.
    """
    soft = ((targets > 0) & (targets < 1)).any()
    known = (~np.isnan(targets)).sum(axis=0)
    if not soft:
        return (targets == 1).sum(axis=0), known
    return np.asarray(np.nansum(targets, axis=0, dtype=np.float64)), known


def fold_table(
    targets: np.ndarray,
    assignment: np.ndarray,
    class_names: Sequence[str],
    patients: np.ndarray | None = None,
) -> str:
    """Text table of positives by class and fold, in lines of at most 100 characters.

    From targets (N, C), folds (N,) and optional patients (N,). The last column is the largest
    relative deviation of a fold from an even share; folds count from 1.
    """
    table = count_table(targets, assignment, class_names, patients)
    table = table.set_axis(range(1, len(table.columns) + 1), axis=1)
    cells = table.map("{:,}".format)
    # 0 / 0 if a class has no positive
    deviations = table.div(table.mean(axis=1), axis=0).sub(1).abs().max(axis=1)
    cells["deviation"] = ["-" if np.isnan(one) else f"{one:.1%}" for one in deviations]
    return cells.rename_axis(columns="fold").to_string(line_width=PAGE_WIDTH)


def count_table(
    targets: np.ndarray,
    assignment: np.ndarray,
    class_names: Sequence[str],
    patients: np.ndarray | None = None,
) -> pd.DataFrame:
    """Numbers of images, patients (if known) and positives per class, in rows, by fold (from 0).

    From targets (N, C), folds (N,) and optional patients (N,).
    """
    folds = int(assignment.max()) + 1
    names = ["images", *class_names]
    rows = [np.bincount(assignment, minlength=folds), *_positives(targets, assignment).T]
    if patients is not None:
        owned = pd.DataFrame({"fold": assignment, "patient": patients}).drop_duplicates()
        names.insert(1, "patients")
        rows.insert(1, np.bincount(owned["fold"], minlength=folds))
    return pd.DataFrame(rows, index=[name[:30] for name in names], columns=range(folds))


def inventory(table: LabelTable) -> str:
    """One line with the numbers of images, patients, studies and views."""
    parts = [f"{len(table):,} images"]
    for values, what in ((table.patients, "patients"), (table.studies, "studies")):
        if values is not None:
            parts.append(f"{len(np.unique(values)):,} {what}")
    if table.views is not None:
        views, counts = np.unique(table.views, return_counts=True)
        texts = [f"{v or '(blank)'} {n:,}" for v, n in zip(views, counts, strict=True)]
        parts.append(f"views {escape_control(list_first(texts, 12))}")
    return ", ".join(parts)


def source_table(table: LabelTable) -> str:
    """Text table of positives and known labels by class and source; "-" if none is known.

    Lines have at most 100 characters.
    """
    assert table.sources is not None
    cells: dict[str, list[str]] = {}
    for source, name in enumerate(table.source_names):
        rows = table.sources == source
        positives, known = count_positives(table.targets[rows])
        cells[name] = [f"{rows.sum():,}"] + [
            f"{one:,.0f} of {all_known:,}" if all_known else "-"
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
    """Warning about classes without a positive in some fold (from 1); "" if there are none.

    From targets (N, C) and folds (N,), which count from 0.
    """
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
    """Write ImageID,PatientID (blank without patients),fold (from 1; 0 or less: never validated).

    assignment: (N,) int of `PreparedData`. Raises UserError if `path` cannot be written.
    """
    patients = "" if table.patients is None else table.patients
    frame = pd.DataFrame({"ImageID": table.ids, "PatientID": patients, "fold": assignment + 1})
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False))


def read_folds(path: Path, table: LabelTable) -> np.ndarray | None:
    """Fold of each image, (N,) int of `PreparedData`, in the order of `table`.

    None if `path` is missing, invalid or has other images.
    """
    try:
        check_regular(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        same = frame["ImageID"].tolist() == list(table.ids)
        folds = frame["fold"].to_numpy().astype(np.int64)
        usable = same and folds.min() >= -MOST_FOLDS and 0 <= folds.max() <= MOST_FOLDS
        return folds - 1 if usable else None
    except (OSError, ValueError, KeyError, OverflowError):
        return None


def lacks_patients(path: Path, sources: Sequence[str]) -> list[bool]:
    """For each source, whether folds.csv has images of it but no patients.

    With several sources images are named SOURCE/IMAGE, and an image without a patient is its own
    patient if another source has patients.
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
