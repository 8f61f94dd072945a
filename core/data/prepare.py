"""From settings to a table and its patient-disjoint folds."""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from core.config import DataConfig, SplitConfig
from core.data.split import assign_folds, check_disjoint, empty_in_fold, fold_table
from core.data.table import LabelTable, read_table
from core.errors import UserError, some


@dataclass(frozen=True)
class Prepared:
    """A table, the fold (from 0) in which each image is validated, and the folds to run (from 1).

    With an official split the training images have fold -1: they are never validated.
    """

    table: LabelTable
    assignment: np.ndarray
    run_folds: tuple[int, ...]

    @property
    def folds(self) -> int:
        """How many folds there are in all; 1 for an official split."""
        return int(self.assignment.max()) + 1

    def rows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(fold from 1, training rows, validation rows) of each fold to run."""
        for fold in self.run_folds:
            held_out = self.assignment == fold - 1
            yield fold, np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def prevalence(self) -> np.ndarray:
        """Share of positives among each class's known training labels, (C,); NaN where none is.

        Every image trains in some fold; with an official split those of --train_csv alone do.
        """
        targets = self.table.targets
        if self.folds == 1:
            targets = targets[self.assignment < 0]
        known = (~np.isnan(targets)).sum(axis=0)
        positives = (targets == 1).sum(axis=0)
        return np.where(known > 0, positives / np.maximum(known, 1), np.nan)

    def fingerprint(self) -> str:
        """Digest of identifiers, patients, labels and folds: equal only for the same data."""
        table = self.table
        patients = [] if table.patients is None else table.patients.tolist()
        digest = hashlib.sha256("\n".join([*table.class_names, *table.ids, *patients]).encode())
        # NaN has many bit patterns
        digest.update(np.nan_to_num(table.targets, nan=-1).astype(np.int8).tobytes())
        digest.update(self.assignment.astype(np.int32).tobytes())
        return digest.hexdigest()


def prepare(data: DataConfig, split: SplitConfig, say: Callable[[str], None]) -> Prepared:
    """Read the table, divide it, and tell the user what was found and which classes are short.

    Raises UserError for whatever is wrong with CSV, folder, labels or folds.
    """
    table = _read(data, data.label_names, data.train_csv)
    for note in table.notes:
        say(note)
    if data.val_csv is None:
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", UserWarning)
            assignment = assign_folds(table.targets, table.patients, split.folds, split.seed)
        for doubt in doubts:
            say(f"Warning: {doubt.message}")
        run_folds = split.run_folds or tuple(range(1, split.folds + 1))
    else:
        table, assignment = _official_split(table, data)
        if split.run_folds not in ((), (1,)):
            raise UserError("--val_csv is a split of its own, fold 1: leave --run_folds out")
        run_folds = (1,)
    validated = assignment >= 0
    say(_inventory(table))
    patients = None if table.patients is None else table.patients[validated]
    say(fold_table(table.targets[validated], assignment[validated], table.class_names, patients))
    for sentence in empty_in_fold(
        table.targets[validated], assignment[validated], table.class_names
    ):
        say(sentence)
    prepared = Prepared(table, assignment, run_folds)
    _check_training(prepared, say)
    return prepared


def _check_training(prepared: Prepared, say: Callable[[str], None]) -> None:
    """Name the classes that a fold cannot learn. Raises UserError where it can learn none."""
    names = prepared.table.class_names
    for fold, training, _ in prepared.rows():
        positives = (prepared.table.targets[training] == 1).sum(axis=0)
        if not positives.any():
            raise UserError(
                f"no label has a positive among the {len(training):,} training images of fold "
                f"{fold}: nothing can be learnt; look at the label columns ({some(list(names))})"
            )
        for name, count in zip(names, positives, strict=True):
            if not count:
                say(
                    f"Warning: {name} has no positive in the training part of fold {fold}, so that "
                    "it cannot be learnt there."
                )


def _official_split(train: LabelTable, data: DataConfig) -> tuple[LabelTable, np.ndarray]:
    """Training and validation CSV as one table, with fold -1 and 0."""
    assert data.val_csv is not None
    val = _read(data, list(train.class_names), data.val_csv)
    check_disjoint(train, val)
    joined = replace(
        train,
        ids=train.ids + val.ids,
        paths=train.paths + val.paths,
        patients=_joined(train.patients, val.patients),
        studies=_joined(train.studies, val.studies),
        views=_joined(train.views, val.views),
        targets=np.concatenate([train.targets, val.targets]),
    )
    return joined, np.repeat([-1, 0], [len(train), len(val)])


def _read(data: DataConfig, labels: list[str] | None, csv: object) -> LabelTable:
    return read_table(
        str(csv),
        data.train_dir,
        labels,
        image_column=data.image_column or None,
        patient_column=data.patient_column or None,
        study_column=data.study_column or None,
        view_column=data.view_column or None,
        uncertain=data.uncertain,
        blank=data.blank,
    )


def _joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])


def _inventory(table: LabelTable) -> str:
    """One line: how many images, patients and studies, and the views."""
    parts = [f"{len(table):,} images"]
    if table.patients is not None:
        parts.append(f"{len(np.unique(table.patients)):,} patients")
    if table.studies is not None:
        parts.append(f"{len(np.unique(table.studies)):,} studies")
    if table.views is not None:
        views, counts = np.unique(table.views, return_counts=True)
        parts.append(
            "views "
            + ", ".join(f"{v or '(blank)'} {n:,}" for v, n in zip(views, counts, strict=True))
        )
    return ", ".join(parts)
