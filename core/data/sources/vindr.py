"""VinDr-CXR: three readers an image in the training table, their consensus in the test table.

Nguyen et al., "VinDr-CXR", Scientific Data 2022, https://physionet.org/content/vindr-cxr/:
`image_labels_train.csv` and `image_labels_test.csv`.
"""

from pathlib import Path

import numpy as np

from core.data.csv.columns import PATIENT_COLUMNS, Column, is_known_non_label, take_rows
from core.data.csv.label_values import label_value
from core.data.sources.sheet import Sheet, column
from core.errors import UserError, plain

CONSENSUS = ("image_id", "Aortic enlargement", "No finding")
BOXES = ("class_name", "x_min")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether images have readers, or labels that only this source calls so, and no patients."""
    names = {plain(name) for name in columns}
    if names & {*map(plain, PATIENT_COLUMNS), *map(plain, BOXES)}:
        return False
    # "No finding" is written with a capital elsewhere
    return {"imageid", "radid"} <= names or set(CONSENSUS) <= set(columns)


def read(path: Path, columns: dict[str, Column], readers: str = "majority") -> Sheet:
    """One row an image: 1 where more than half of its readers say so, or with "any" one of them.

    Raises UserError where images have not the same number of readers, one reader is there twice
    for an image, for a cell that is neither 1 nor 0, and for a table of boxes.
    """
    if boxes := [name for name in columns if plain(name) in map(plain, BOXES)]:
        raise UserError(
            f"{path} is a table of boxes (column '{boxes[0]}'), with one row a finding: give "
            "--source vindr a table with one column a label, such as image_labels_train.csv."
        )
    images = column(path, columns, "image_id", "vindr")
    by = next((columns[name] for name in columns if plain(name) == "radid"), None)
    notes = []
    others = (images, by)
    labels = tuple(n for n, c in columns.items() if c not in others and not is_known_non_label(n))
    if by is not None:
        each = _check_readers(path, images, by)
        columns = _vote(path, columns, images, labels, readers)
        how = "any" if readers == "any" else "more than half"
        notes.append(
            f"A label of {path} is positive where {how} of the {each} reader(s) of an image say so "
            "(--readers any or majority)."
        )
    return Sheet(
        path=path,
        columns=columns,
        labels=labels,
        no_labels=tuple(name for name in columns if plain(name) == "radid"),
        image=("image_id",),
        patient=(),
        study=(),
        notes=tuple(notes),
    )


def _check_readers(path: Path, images: Column, readers: Column) -> int:
    """How many readers each image has."""
    if "" in readers.values:
        raise UserError(f"{readers.place(path, '')} names no reader in column 'rad_id'.")
    counts = images.counts
    usual = int(np.bincount(counts).argmax())
    other = np.flatnonzero(counts != usual)
    if len(other):
        name = images.values[other[0]]
        raise UserError(
            f"{path}: {len(other):,} image(s) have not {usual} reader(s) as the others: "
            f"'{name}', row {images.row_of(name)}, has {counts[other[0]]}. Is the file whole?"
        )
    pairs = images.codes.astype(np.int64) * len(readers.values) + readers.codes
    order = np.argsort(pairs, kind="stable")
    again = order[1:][pairs[order][1:] == pairs[order][:-1]]
    if len(again):
        first = int(again.min())
        raise UserError(
            f"{path}: row {images.row_at(first)} (the header is row 1) is reader "
            f"'{readers.values[readers.codes[first]]}' a second time for image "
            f"'{images.values[images.codes[first]]}'."
        )
    return usual


def _vote(
    path: Path, columns: dict[str, Column], images: Column, labels: tuple[str, ...], readers: str
) -> dict[str, Column]:
    """One row for each image, where it is first named, with the readers' votes counted."""
    _, first = np.unique(images.codes, return_index=True)
    voted = {}
    for name in labels:
        answers = columns[name]
        said = [label_value(text) for text in answers.values]
        for text, value in zip(answers.values, said, strict=True):
            if value not in (0, 1):
                raise UserError(
                    f"{answers.place(path, text)}, column '{name}' holds '{text[:40]}'; a "
                    "reader's label is 1 or 0."
                )
        says_yes = np.array([value == 1 for value in said])[answers.codes]
        votes = np.bincount(images.codes, weights=says_yes)
        positive = votes > (0 if readers == "any" else images.counts / 2)
        # the votes are in the order of the images' codes, as the first rows are
        voted[name] = Column(positive.astype(np.int8), ["0", "1"], first + 2)
    names = {name: c for name, c in columns.items() if name not in labels}
    return take_rows(names, first) | voted
