"""VinDr-CXR: three readers an image in the training table, their consensus in the test table.

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
    """Whether images have readers, or labels that only this source calls so, and no patients."""
    if csv.names_among(columns, (*csv.PATIENT_COLUMNS, *BOXES)):
        return False
    # "No finding" is written with a capital elsewhere
    return csv.has_columns(columns, ("image_id", "rad_id")) or set(CONSENSUS) <= set(columns)


def read(path: Path, columns: dict[str, Column], readers: str = "majority") -> SourceTable:
    """One row an image: 1 where more than half of its readers say so, or with "any" one of them.

    Raises UserError where images have not the same number of readers, one reader is there twice
    for an image, for a cell that is neither 1 nor 0, and for a table of boxes.
    """
    if boxes := csv.names_among(columns, BOXES):
        raise UserError(
            f"{path} is a table of boxes (column '{boxes[0]}'), with one row a finding: give "
            "--source vindr a table with one column a label, such as image_labels_train.csv."
        )
    images, by = column(columns, "image_id", "vindr"), csv.find_named(columns, "rad_id")
    rest = {name: c for name, c in columns.items() if c not in (images, by)}
    labels = tuple(name for name in rest if not is_known_non_label(name))
    notes: tuple[str, ...] = ()
    if by is not None:
        each = _count_readers(images, by)
        columns = _vote(columns, images, labels, readers)
        how = "any" if readers == "any" else "more than half"
        notes = (
            f"A label of {path} is positive where {how} of {each} reader(s) say so (--readers).",
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
    """The number of readers of each image, which must be the same for all."""
    if "" in readers.values:
        raise UserError(f"{readers.place('')} names no reader in column 'rad_id'.")
    counts = images.counts
    usual = int(np.bincount(counts).argmax())
    other = np.flatnonzero(counts != usual)
    if len(other):
        name = images.values[other[0]]
        raise UserError(
            f"{images.path}: {len(other):,} image(s) have not {usual} reader(s) as the others: "
            f"'{name}', row {images.row_of(name)}, has {counts[other[0]]}. Is the file whole?"
        )
    again = pd.DataFrame({"image": images.codes, "reader": readers.codes}).duplicated()
    if again.any():
        first = int(again.argmax())
        raise UserError(
            f"{images.path}: row {images.row_at(first)} (the header is row 1) is reader "
            f"'{readers.cells[first]}' a second time for image '{images.cells[first]}'."
        )
    return usual


def _vote(
    columns: dict[str, Column], images: Column, labels: tuple[str, ...], readers: str
) -> dict[str, Column]:
    """One row for each image, where it is first named, with the readers' votes counted."""
    _, first = np.unique(images.codes, return_index=True)
    voted = {}
    for name in labels:
        answers = columns[name]
        if wrong := [text for text in answers.values if label_value(text) not in (0, 1)]:
            raise UserError(f"{answers.cell(wrong[0])}; a reader's label is 1 or 0.")
        # in the order of the images' codes, as the first rows are
        votes = np.bincount(images.codes, weights=answers.each(label_value))
        positive = votes > (0 if readers == "any" else images.counts / 2)
        codes = positive.astype(np.int8)
        voted[name] = replace(answers, codes=codes, values=["0", "1"], rows=first + 2)
    names = {name: c for name, c in columns.items() if name not in labels}
    return csv.take_rows(names, first) | voted
