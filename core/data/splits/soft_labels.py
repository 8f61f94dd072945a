"""Folds of tables with soft labels: images without hard labels only train."""

from collections.abc import Callable
from itertools import compress

import numpy as np

from core.data.splits.duplicates import merge_patients
from core.data.splits.folds import assign_by_name
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize


def drop_soft_duplicates(
    table: LabelTable, first: np.ndarray, log: Callable[[str], None]
) -> tuple[LabelTable, np.ndarray]:
    """Leave out images with soft labels alone that equal one with hard labels; log their number.

    Returns the table and `first`, (M,), of `find_duplicates`.
    """
    pseudo = table.is_pseudo
    copies = pseudo & np.isin(first, first[~pseudo])
    if not copies.any():
        return table, first
    names = list_first(list(compress(table.ids, copies)))
    log(
        f"Warning: {pluralize(int(copies.sum()), 'image')} with soft labels alone left out, as "
        f"they equal images with hard labels: {names}."
    )
    _, places, groups = np.unique(first[~copies], return_index=True, return_inverse=True)
    return table.take(~copies), places[groups]


def assign_around_soft(
    table: LabelTable,
    first: np.ndarray,
    assign: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
) -> np.ndarray:
    """Assignment of `PreparedData`, (N,) int, from `first` (N,) of `find_duplicates`.

    Images with soft labels alone do not change the folds of the others.
    """
    pseudo = table.is_pseudo
    if not pseudo.any():
        return assign_by_name(table, merge_patients(table.patients, first), assign)
    if pseudo.all():
        raise UserError(
            "no image of --train_csv has a hard label (1 or 0), which validation needs: add a CSV "
            "with hard labels"
        )
    hard = table.take(~pseudo)
    _, places, groups = np.unique(first[~pseudo], return_index=True, return_inverse=True)
    folds = assign_by_name(hard, merge_patients(hard.patients, places[groups]), assign)
    assignment = np.full(len(table), -1)
    assignment[~pseudo] = folds
    if table.patients is not None:
        fold_of = dict(zip(table.patients[~pseudo], folds.tolist(), strict=True))
        assignment[pseudo] = [-2 - fold_of.get(one, -1) for one in table.patients[pseudo]]
    return assignment


def describe_soft(table: LabelTable, assignment: np.ndarray) -> str:
    """One line with the numbers of soft labels, and of images without hard ones."""
    soft, pseudo = table.is_soft, table.is_pseudo
    if not soft.any():
        return "Warning: --soft_labels is given, and --train_csv has no label between 0 and 1."
    text = f"Soft labels of {soft.any(axis=1).sum():,} of {len(table):,} images"
    if not pseudo.any():
        return f"{text}; each also has a hard label to validate on."
    text += f"; {pseudo.sum():,} have no hard label and are never validated"
    if shared := int((assignment < -1).sum()):
        text += f" ({shared:,} of them train in every fold but that of their patient)"
    return f"{text}."
