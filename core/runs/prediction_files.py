"""Prediction files, and the match with labels by image and class name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import IMAGE_COLUMNS, find_column, read_columns
from core.data.csv.labels import check_printable
from core.data.tables.anonymous import is_numbered, restore_names
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities by image (or study) and class, read from a file."""

    path: Path
    id_column: str
    ids: list[str]
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    """(N, C) float64 within [0, 1]"""

    def select(self, ids: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
        """Probabilities of these images and classes, in this order; all must be present."""
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        columns = np.array([self.class_names.index(name) for name in class_names], dtype=np.intp)
        return self.probabilities[np.ix_(rows, columns)]


def read_predictions(path: Path) -> Predictions:
    """Read a CSV with a column of images (or studies) and one column of probabilities a class.

    The column of images is found by its usual names, else it is the first one. Raises UserError,
    with row and column, for a blank or repeated name and a cell that is not within [0, 1].
    """
    columns = read_columns(path)
    name = find_column(path, columns, "", IMAGE_COLUMNS, "") or next(iter(columns))
    ids = columns[name].cells.tolist()
    if "" in columns[name].values:
        row = columns[name].row_of("")
        raise UserError(f"{path}: row {row} (the header is row 1) has no name in column '{name}'")
    if repeated := pd.Series(ids)[pd.Series(ids).duplicated()].unique().tolist():
        raise UserError(
            f"{path}: {len(repeated):,} name(s) are in column '{name}' more than once: "
            f"{list_first(repeated)}"
        )
    class_names = [column for column in columns if column != name]
    if not class_names or "" in class_names:
        raise UserError(
            f"{path} is not a valid predictions file: it needs a named column for each class"
        )
    probabilities = np.empty((len(ids), len(class_names)))
    for position, label in enumerate(class_names):
        check_printable(path, label)
        column = columns[label]
        values = pd.to_numeric(pd.Series(column.values, dtype=object), errors="coerce").to_numpy()
        values = values.astype(float)
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            text = column.values[int(wrong.argmax())]
            raise UserError(
                f"{path}: row {column.row_of(text)} (the header is row 1), column '{label}' holds "
                f"'{text[:40]}', which is not a probability (a number from 0 to 1)"
            )
        probabilities[:, position] = values[column.codes]
    return Predictions(path, name, ids, tuple(class_names), probabilities)


def match_labels(
    predictions: Sequence[Predictions],
    labels: LabelTable,
    labels_path: Path,
    *,
    common: bool,
    common_images: bool = False,
) -> tuple[LabelTable, list[np.ndarray], list[str]]:
    """Match predictions with labels by image and class, in the order of the labels.

    Predictions of --anonymous runs get their names from `labels`. Returns the table of the shared
    images and classes, one array (N, C) a file, and notes on what was left out. Raises UserError if
    nothing is shared, or, unless `common`, if an image (unless `common_images`) or a class is
    missing in a file.
    """
    ids, names = list(labels.ids), list(labels.class_names)
    predictions = [replace(one, ids=restore_names(one.ids, ids)) for one in predictions]
    notes: list[str] = []
    errors: list[str] = []
    for table in predictions:
        for what, here, there in (("image", ids, table.ids), ("class", names, table.class_names)):
            unmatched = _describe_unmatched(what, here, there, labels_path, table.path)
            unmatched += _describe_unmatched(what, there, here, table.path, labels_path)
            notes += unmatched
            if not (common or (common_images and what == "image")):
                errors += unmatched
    if errors:
        hint = ""
        if any(map(is_numbered, (table.ids[0] for table in predictions))):
            hint = " (numbers of --anonymous match only the same list in the same order)"
        raise UserError(f"{'; '.join(errors)}{hint}; --common scores what all files have")
    shared_ids = set(ids).intersection(*(table.ids for table in predictions))
    shared_names = set(names).intersection(*(table.class_names for table in predictions))
    if not shared_ids or not shared_names:
        what = "image" if not shared_ids else "class"
        paths = ", ".join(str(table.path) for table in predictions)
        raise UserError(
            f"no {what} is in all of {labels_path}, {paths}: give files or runs of the same data"
        )
    rows = np.array([row for row, name in enumerate(ids) if name in shared_ids])
    columns = [column for column, name in enumerate(names) if name in shared_names]
    shared = labels.take(rows)
    shared = replace(
        shared,
        targets=shared.targets[:, columns],
        class_names=tuple(names[column] for column in columns),
    )
    return shared, [table.select(shared.ids, shared.class_names) for table in predictions], notes


def _describe_unmatched(
    what: str, names: Sequence[str], others: Sequence[str], path: Path, other: Path
) -> list[str]:
    """A sentence on the `names` of a file that are missing in the other, or []."""
    known = set(others)
    if not (unmatched := [name for name in names if name not in known]):
        return []
    number = pluralize(len(unmatched), what, "classes" if what == "class" else "")
    return [f"{number} of {path} not in {other}: {list_first(unmatched)}"]
