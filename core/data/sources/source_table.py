"""Common form of all sources: a table of one row an image, and what is known of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.data.csv.columns import (
    IMAGE_COLUMNS,
    PATIENT_COLUMNS,
    STUDY_COLUMNS,
    VIEW_COLUMNS,
    Column,
    find_named,
    names_among,
)
from core.data.csv.label_values import label_key
from core.errors import UserError, suggest_name

# More is a column of free text, and would need gigabytes.
MOST_LABELS = 1000
# of CheXpert and of MIMIC-CXR, which was labelled with the same tool
CHEXPERT_LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceTable:
    """A table with one row an image and one column a label, as `read_table` reads it."""

    path: Path
    """The CSV, for sentences"""
    columns: dict[str, Column]
    labels: tuple[str, ...] | None = None
    """The columns that are labels; None where their cells must tell."""
    no_labels: tuple[str, ...] = ()
    """Columns that the source publishes besides, and that need not be told of."""
    image: tuple[str, ...] = IMAGE_COLUMNS
    """What the column of the images' names may be called, first one first; likewise the others"""
    patient: tuple[str, ...] = PATIENT_COLUMNS
    study: tuple[str, ...] = STUDY_COLUMNS
    view: tuple[str, ...] = VIEW_COLUMNS
    lists: bool = False
    """Whether labels stand in lists, so that one that no list names is 0 in every image"""
    blank: str | None = None
    """What a blank label means here; None where the user is asked"""
    official_test: np.ndarray | None = None
    """(N,) bool: images of the official test; None where the source does not name them"""
    no_official_test: str = ""
    """Why it does not, where it usually does"""
    notes: tuple[str, ...] = ()
    """Sentences for the user"""


def one_spelling(labels: list[list[str]], known: Iterable[str]) -> list[list[str]]:
    """Labels that differ in case, blanks, hyphens or underscores alone, in one spelling.

    It is that of `known`, else the first one. Each label is once in a cell.
    """
    spelling = {label_key(name): name for name in known}
    return [
        list(dict.fromkeys(spelling.setdefault(label_key(name), name) for name in cell))
        for cell in labels
    ]


def expand_lists(
    columns: dict[str, Column],
    cells: Column,
    labels: list[list[str]],
    known: Iterable[str],
    needed: Iterable[str],
) -> tuple[dict[str, Column], dict[str, Column], list[str]]:
    """The other columns; one of 1 and 0 for each label, by alphabet; and warnings.

    labels: for each of `cells.values` the labels that it names; those `known` get a column anyway.
    A column named as a label gives way. Raises UserError where it is one of those `needed`, or the
    labels are too many.
    """
    names = sorted({*known, *(name for cell in labels for name in cell)})
    keys = {label_key(name): name for cell in labels for name in cell}
    if len(keys) > MOST_LABELS:
        raise UserError(
            f"{cells.path}: column '{cells.name}' names {len(keys):,} different labels, which "
            f"looks like free text (the most is {MOST_LABELS:,}). Take out what is no label."
        )
    same = [name for name in columns if label_key(name) in keys]
    if wrong := names_among(same, needed):
        raise UserError(
            f"{cells.path}: column '{cells.name}' names the label '{keys[label_key(wrong[0])]}', "
            f"and there is a column '{wrong[0]}', which is needed: rename that label."
        )
    notes = [
        f"Warning: column '{name}' of {cells.path} is ignored: '{cells.name}' names that label."
        for name in same
    ]
    place = {name: position for position, name in enumerate(names)}
    named = np.zeros((len(names), len(labels)), dtype=np.int8)
    for code, cell in enumerate(labels):
        named[[place[name] for name in cell], code] = 1
    found = {
        name: Column(name, cells.path, named[position][cells.codes], ["0", "1"], cells.rows)
        for name, position in place.items()
    }
    return {name: c for name, c in columns.items() if name not in same}, found, notes


def column(columns: dict[str, Column], wanted: str, source: str) -> Column:
    """The column of this name, whatever its case and punctuation.

    Raises UserError where the table has none.
    """
    found = find_named(columns, wanted)
    if found is None:
        path = next(iter(columns.values())).path
        raise UserError(
            f"{path} has no column '{wanted}', which --source {source} needs"
            f"{suggest_name(wanted, columns)}."
        )
    return found
