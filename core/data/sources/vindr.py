"""VinDr-CXR: three readers per image in the training table, their consensus in the test table.

Nguyen et al., "VinDr-CXR", Scientific Data 2022, https://physionet.org/content/vindr-cxr/:
`image_labels_train.csv` and `image_labels_test.csv`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv import columns as csv
from core.data.csv.columns import Column
from core.data.csv.label_values import label_value
from core.data.csv.non_labels import is_known_non_label
from core.data.sources.source_table import SourceTable, column
from core.errors import UserError

CONSENSUS = ("image_id", "Aortic enlargement", "No finding")
BOXES = ("class_name", "x_min")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has readers or this dataset's label names, and no patients."""
    if csv.names_among(columns, (*csv.PATIENT_COLUMNS, *BOXES)):
        return False
    # other datasets write "No Finding"
    return csv.has_columns(columns, ("image_id", "rad_id")) or set(CONSENSUS) <= set(columns)


def read(path: Path, columns: dict[str, Column], readers: str = "majority") -> SourceTable:
    """Read one row per image: 1 if the majority of its readers (or "any") marked it.

    Raises UserError if images have different numbers of readers, a reader is repeated for an image,
    a cell is neither 1 nor 0, or the table has boxes.
    """
    if boxes := csv.names_among(columns, BOXES):
        raise UserError(
            f"{path} is a table of boxes (column '{boxes[0]}'), with one row per finding: give "
            "--source vindr a table with one column per label, such as image_labels_train.csv."
        )
    images, by = column(columns, "image_id", "vindr"), csv.find_named(columns, "rad_id")
    rest = {name: c for name, c in columns.items() if c not in (images, by)}
    labels = tuple(name for name in rest if not is_known_non_label(name))
    notes: tuple[str, ...] = ()
    if by is not None:
        each = _count_readers(images, by)
        columns = _count_votes(columns, images, labels, readers)
        how = "any" if readers == "any" else "more than half"
        notes = (
            f"A label of {path} is positive if {how} of {each} reader(s) marked it (--readers).",
        )
    return SourceTable(
        path=path,
        columns=columns,
        labels=labels,
        no_labels=csv.names_among(columns, ("rad_id",)),
        image=("image_id",),
        patient=(),
        study=(),
        notes=notes,
    )


def _count_readers(images: Column, readers: Column) -> int:
    """Number of readers per image, which must be the same for all images."""
    if "" in readers.values:
        raise UserError(f"{readers.place('')} has no reader in column 'rad_id': fill it in.")
    counts = images.counts
    usual = int(np.bincount(counts).argmax())
    other = np.flatnonzero(counts != usual)
    if len(other):
        name = images.values[other[0]]
        raise UserError(
            f"{images.path}: {len(other):,} image(s) do not have {usual} reader(s) like the "
            f"others: '{name}', row {images.row_of(name)}, has {counts[other[0]]}. Check that the "
            "file is complete."
        )
    again = pd.DataFrame({"image": images.codes, "reader": readers.codes}).duplicated()
    if again.any():
        first = int(again.argmax())
        raise UserError(
            f"{images.path}: row {images.row_at(first)} (the header is row 1) is reader "
            f"'{readers.cells[first]}' a second time for image '{images.cells[first]}'."
        )
    return usual


def _count_votes(
    columns: dict[str, Column], images: Column, labels: tuple[str, ...], readers: str
) -> dict[str, Column]:
    """Combine the readers' rows: one row per image, at its first row in the file."""
    _, first = np.unique(images.codes, return_index=True)
    voted = {}
    for name in labels:
        answers = columns[name]
        if wrong := [text for text in answers.values if label_value(text) not in (0, 1)]:
            raise UserError(f"{answers.cell(wrong[0])}; a reader's label is 1 or 0.")
        # in the order of the image codes, like `first`
        votes = np.bincount(images.codes, weights=answers.each(label_value))
        positive = votes > (0 if readers == "any" else images.counts / 2)
        codes = positive.astype(np.int8)
        voted[name] = replace(answers, codes=codes, values=["0", "1"], rows=first + 2)
    names = {name: c for name, c in columns.items() if name not in labels}
    return csv.take_rows(names, first) | voted
