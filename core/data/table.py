"""CSV and image folder → LabelTable: what is known about each image, checked once, in one place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.columns import (
    IMAGE_COLUMNS,
    PATIENT_COLUMNS,
    STUDY_COLUMNS,
    VIEW_COLUMNS,
    Column,
    find_column,
    is_known_non_label,
    read_columns,
)
from core.data.files import match_images
from core.errors import UserError, nearest, some

LABEL_VALUES = {
    **dict.fromkeys(("1", "1.0"), 1.0),
    **dict.fromkeys(("0", "0.0"), 0.0),
    **dict.fromkeys(("-1", "-1.0"), -1.0),
    "": np.nan,
}
UNCERTAIN = {"ignore": np.nan, "zero": 0.0, "one": 1.0}
BLANK = {"unknown": np.nan, "zero": 0.0}
# A column with so large a share of label values among its filled cells is meant as a label.
MEANT_AS_LABEL = 0.8
# 1.90E+38 is what a spreadsheet makes of a long number: many patients become one.
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
PATIENT_IN_PATH = re.compile(r"(?:^|/)(patient\d+)/")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """N images with C labels. Texts are as in the CSV, so "00012" stays "00012"."""

    ids: list[str]
    paths: list[str]
    """An existing file for each image; empty where only the labels were read."""
    patients: np.ndarray | None
    """(N,) str"""
    studies: np.ndarray | None
    """(N,) str"""
    views: np.ndarray | None
    """(N,) str"""
    targets: np.ndarray
    """(N, C) float32: 1, 0, and NaN for unknown"""
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences for the user: what was taken for what, and what looks doubtful."""
    id_column: str = "ImageID"
    """What the CSV calls the images' names."""

    def __len__(self) -> int:
        return len(self.ids)


def read_table(
    csv: str | Path,
    image_dir: str | Path | None,
    labels: Sequence[str] | None = None,
    *,
    image_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    view_column: str | None = None,
    uncertain: str = "ignore",
    blank: str | None = None,
) -> LabelTable:
    """Read a CSV with one row for each image, and find the images (none where `image_dir` is None).

    `labels` names the label columns in the wanted order; without it every column of 1, 0, -1 and
    blanks that is no known other thing is one. Columns that are not named are found by the names
    that common datasets use; "none" as `patient_column`, `study_column` or `view_column` means
    that there is none. `uncertain` (ignore, zero, one) says what -1 means, `blank` (unknown, zero)
    what an empty label means.

    Raises UserError for anything that is missing, ambiguous or not a label, naming the place.
    """
    path = Path(csv)
    columns = read_columns(path)
    images = find_column(path, columns, image_column, IMAGE_COLUMNS, "--image_column")
    if images is None:
        raise UserError(
            f"{path} has no column with the images' names{nearest(IMAGE_COLUMNS[0], columns)}. "
            "Name it with --image_column; cells are separated by commas."
        )
    patients = find_column(path, columns, patient_column, PATIENT_COLUMNS, "--patient_column")
    studies = find_column(path, columns, study_column, STUDY_COLUMNS, "--study_column")
    views = find_column(path, columns, view_column, VIEW_COLUMNS, "--view_column")
    used = {name for name in (images, patients, studies, views) if name is not None}

    class_names = _choose_labels(path, columns, used, labels)
    targets, notes = _read_targets(path, columns, class_names, uncertain, blank)
    if labels is None:
        notes.insert(0, f"Labels ({len(class_names)}, found in {path}): {', '.join(class_names)}.")
    ignored = [name or "(unnamed)" for name in columns if name not in used | set(class_names)]
    if ignored:
        notes.append(f"Columns of {path} that are not used: {', '.join(ignored)}.")

    ids = read_ids(path, images, columns[images])
    if patients is not None:
        people: np.ndarray | None = _read_patients(path, patients, columns[patients])
    elif patient_column is not None and patient_column.lower() == "none":
        people = None
    else:
        people, note = _patients_from_paths(path, ids)
        notes.append(note)
    return LabelTable(
        ids=ids,
        paths=[] if image_dir is None else match_images(ids, Path(image_dir)),
        patients=people,
        studies=None if studies is None else columns[studies].cells,
        views=None if views is None else columns[views].cells,
        targets=targets,
        class_names=class_names,
        notes=tuple(notes),
        id_column=images,
    )


def _choose_labels(
    path: Path, columns: dict[str, Column], used: set[str], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The requested labels, checked, or all columns that hold label values only."""
    if labels is None:
        return _detect_labels(path, columns, used)
    if not labels:
        raise UserError("--labels is empty: name at least one column, or leave it out.")
    for name in labels:
        if name not in columns:
            raise UserError(f"{path} has no label column '{name}'{nearest(name, columns)}.")
        if name in used:
            raise UserError(
                f"{path}: column '{name}' names the image, patient, study or view, so that it "
                "cannot be a label too. Take it out of --labels."
            )
        if list(labels).count(name) > 1:
            raise UserError(f"--labels names '{name}' more than once.")
    return tuple(labels)


def _detect_labels(path: Path, columns: dict[str, Column], used: set[str]) -> tuple[str, ...]:
    found = []
    for name, column in columns.items():
        if name in used or is_known_non_label(name):
            continue
        filled = np.array([value != "" for value in column.values])
        valid = np.array([value in LABEL_VALUES for value in column.values])
        cells = column.counts
        if cells[filled & valid].sum() < MEANT_AS_LABEL * cells[filled].sum() or not filled.any():
            continue
        if not valid.all():
            wrong = column.values[int((~valid).argmax())]
            raise UserError(
                f"{_bad_cell(path, name, column, wrong)} If '{name}' is no label, name those that "
                "are with --labels."
            )
        found.append(name)
    if found:
        return tuple(found)
    joined = [name for name, column in columns.items() if any("|" in v for v in column.values)]
    hint = f" Column '{joined[0]}' lists several in a cell: split it up." if joined else ""
    rest = [name for name in columns if name not in used and not is_known_non_label(name)]
    for name in rest[:1]:
        strange = [value for value in columns[name].values if value not in LABEL_VALUES]
        if strange and not joined:
            hint = f" {_bad_cell(path, name, columns[name], strange[0])}"
    raise UserError(
        f"{path} has no label column: one column of 1 and 0 for each label is needed.{hint}"
    )


def _bad_cell(path: Path, name: str, column: Column, value: str) -> str:
    return (
        f"{path}: row {column.row_of(value)} (the header is row 1), column '{name}' holds "
        f"'{value[:40]}'; a label is 1, 0, -1 (uncertain) or blank."
    )


def _read_targets(
    path: Path, columns: dict[str, Column], names: Sequence[str], uncertain: str, blank: str | None
) -> tuple[np.ndarray, list[str]]:
    """Targets (N, C) float32 with NaN for unknown, and sentences about them."""
    for flag, choice, choices in (
        ("--uncertain", uncertain, UNCERTAIN),
        ("--blank", blank or "unknown", BLANK),
    ):
        if choice not in choices:
            raise UserError(f"{flag} {choice} is none of {', '.join(choices)}.")
    meaning = {1.0: 1.0, 0.0: 0.0, -1.0: UNCERTAIN[uncertain]}
    meaning_of_blank = BLANK[blank or "unknown"]
    rows = len(columns[names[0]].codes)
    targets = np.empty((rows, len(names)), dtype=np.float32)
    blanks = []
    for position, name in enumerate(names):
        column = columns[name]
        for value in column.values:
            if value not in LABEL_VALUES:
                raise UserError(_bad_cell(path, name, column, value))
        decoded = [
            meaning[LABEL_VALUES[value]] if value else meaning_of_blank for value in column.values
        ]
        targets[:, position] = np.array(decoded, dtype=np.float32)[column.codes]
        empty = column.counts[[not value for value in column.values]].sum() / rows
        if empty > 0.5:
            blanks.append(f"{name} ({empty:.0%})")
    if blanks and blank is None:
        raise UserError(
            f"{path}: more than half of the cells are blank in {some(blanks)}. Does a blank mean "
            "that the finding is absent (--blank zero) or that nobody knows (--blank unknown)?"
        )
    without = [name for name, n in zip(names, np.nansum(targets, axis=0), strict=True) if n == 0]
    notes = []
    if without:
        notes.append(
            f"Warning: no image of {path} is positive for {', '.join(without)}, so that nothing "
            "can be learnt or measured there."
        )
    return targets, notes


def read_ids(path: Path, name: str, column: Column) -> list[str]:
    """The images that the CSV at `path` names in `column`, called `name`.

    Raises UserError for a blank name, one that leaves the folder, and one that is there twice.
    """
    for value in column.values:
        if not value:
            raise UserError(
                f"{path}: row {column.row_of('')} (the header is row 1) names no image in column "
                f"'{name}'."
            )
        if ".." in value and ".." in re.split(r"[/\\]", value):
            raise UserError(
                f"{path}: row {column.row_of(value)} (the header is row 1) names the image "
                f"'{value}', which leaves the image folder. Give paths without '..'."
            )
    ids = column.cells
    repeated = pd.unique(ids[pd.Series(ids).duplicated().to_numpy()]).tolist()
    if repeated:
        raise UserError(
            f"{path}: {len(repeated):,} image(s) are in column '{name}' more than once: "
            f"{some(repeated)}. Keep one row for each image."
        )
    return ids.tolist()


def _read_patients(path: Path, name: str, column: Column) -> np.ndarray:
    way_out = "pass --patient_column none, and the folds may share patients."
    for value in column.values:
        if not value:
            raise UserError(
                f"{path}: row {column.row_of('')} (the header is row 1) names no patient in column "
                f"'{name}'. Fill it in, or {way_out}"
            )
        if ROUNDED_NUMBER.fullmatch(value):
            raise UserError(
                f"{path}: row {column.row_of(value)} (the header is row 1), column '{name}' holds "
                f"'{value}', a rounded number that merges many patients into one. Use a file that "
                f"was not saved by a spreadsheet, or {way_out}"
            )
    return column.cells


def _patients_from_paths(path: Path, ids: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """CheXpert has no patient column but names the patient in each path; and a note about it."""
    found = [PATIENT_IN_PATH.search(name) for name in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        return np.array(patients, dtype=object), (
            f"Patients are taken from the images' paths, such as '{patients[0]}' in {ids[0]}."
        )
    return None, (
        f"Warning: {path} has no known patient column, so that images of one patient may fall into "
        "two folds and inflate every number. Name it with --patient_column."
    )
