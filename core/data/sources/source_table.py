"""SourceTable: common form of all sources, with one row per image."""

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

# a column of free text would need gigabytes
MOST_LABELS = 1000
# of CheXpert and MIMIC-CXR, which use the same labeller
CHEXPERT_LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceTable:
    """Table of a source with one row per image and one column per label; input of `read_table`."""

    path: Path
    """The CSV, for messages"""
    columns: dict[str, Column]
    labels: tuple[str, ...] | None = None
    """Label columns; None: detect them"""
    no_labels: tuple[str, ...] = ()
    """Other columns of the dataset, not reported as unused"""
    image: tuple[str, ...] = IMAGE_COLUMNS
    """Possible names of the image column, in order of preference; likewise for the others"""
    patient: tuple[str, ...] = PATIENT_COLUMNS
    study: tuple[str, ...] = STUDY_COLUMNS
    view: tuple[str, ...] = VIEW_COLUMNS
    lists: bool = False
    """Whether labels are in lists, so that a label in no list is 0 in every image"""
    blank: str | None = None
    """Default meaning of a blank label; None: --blank is required if there are many"""
    official_test: np.ndarray | None = None
    """(N,) bool: images of the official test; None if it is unknown"""
    no_official_test: str = ""
    """Reason if the source usually has an official test but here it is unknown"""
    notes: tuple[str, ...] = ()
    """Messages for the user"""


def unify_spelling(labels: list[list[str]], known: Iterable[str]) -> list[list[str]]:
    """Give labels that differ only in case, blanks, hyphens or underscores the same spelling.

    The spelling of `known` is used, else the first one. Duplicates within a cell are removed.
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
    """Expand lists of labels: the other columns, a column of 1 and 0 per label (sorted), warnings.

    labels: the labels of each of `cells.values`; those in `known` always get a column. A column
    with the name of a label is dropped. Raises UserError if it is `needed`, or for too many labels.
    """
    names = sorted({*known, *(name for cell in labels for name in cell)})
    keys = {label_key(name): name for cell in labels for name in cell}
    if len(keys) > MOST_LABELS:
        raise UserError(
            f"{cells.path}: column '{cells.name}' has {len(keys):,} different labels; the maximum "
            f"is {MOST_LABELS:,}. Check that it is not free text."
        )
    same = [name for name in columns if label_key(name) in keys]
    if wrong := names_among(same, needed):
        raise UserError(
            f"{cells.path}: column '{cells.name}' has the label '{keys[label_key(wrong[0])]}', "
            f"which is also the required column '{wrong[0]}': rename the label."
        )
    notes = [
        f"Warning: column '{name}' of {cells.path} is ignored: '{cells.name}' has that label."
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
    """The column of this name, ignoring case and punctuation. Raises UserError if it is missing."""
    found = find_named(columns, wanted)
    if found is None:
        path = next(iter(columns.values())).path
        raise UserError(
            f"{path} has no column '{wanted}', which --source {source} needs"
            f"{suggest_name(wanted, columns)}."
        )
    return found
