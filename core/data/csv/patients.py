"""Patients of a table: from its column, image paths or DICOM headers, and likely columns."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from core.data.csv.columns import Column
from core.data.csv.label_values import is_missing
from core.data.csv.non_labels import is_known_non_label
from core.data.images.dicom.header import patients_of
from core.errors import UserError, list_first, normalize_name

# in names of identifiers, and of other facts about a patient
_NAMED = re.compile(
    "patient|subject|person|participant|individual|client|mrn|medicalrecord|healthrecord|case"
    "|pseudonym"
)
_OTHER = re.compile("(?:age|sex|gender|birth|race|ethnic|date|time|weight|height|size|position)")
_IDENTIFIER = re.compile(r"(?=.*\d)[^\s,;/\\]{2,64}")
_DECIMAL = re.compile(r"[+-]?\d+[.,]\d+")
# largest mean number of images per patient: if the name matches (above any public dataset), if not
_MOST_IMAGES, _MOST_UNNAMED = 50, 10
# spreadsheets round long numbers to 1.90E+38, which merges patients
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
PATIENT_IN_PATH = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]")


def likely_patient_columns(columns: Mapping[str, Column], known: Collection[str]) -> list[str]:
    """Columns that look like an identifier shared by several rows; those by name come first.

    Columns in `known` have another use and are left out.
    """
    named, others = [], []
    for name, column in columns.items():
        filled = [text for text in column.values if not is_missing(text)]
        images = len(column.codes) / max(len(filled), 1)
        if name in known or len(filled) < 2 or not 1 < images <= _MOST_IMAGES:
            continue
        if _NAMED.search(normalize_name(name)) and not _OTHER.search(normalize_name(name)):
            named.append(name)
        elif images <= _MOST_UNNAMED and not is_known_non_label(name) and _are_codes(filled):
            others.append(name)
    return named + others


def _are_codes(texts: Collection[str]) -> bool:
    """Whether all texts have a digit, have no blanks and are not decimal numbers."""
    return all(_IDENTIFIER.fullmatch(text) and not _DECIMAL.fullmatch(text) for text in texts)


def read_patients(column: Column) -> np.ndarray:
    """Patients (N,) str. Raises UserError if one is blank or was rounded by a spreadsheet."""
    remedy = "pass --patient_column none; then folds may share patients."
    if "" in column.values:
        raise UserError(
            f"{column.place('')} has no patient in '{column.name}'. Fill it in, or {remedy}"
        )
    for value in filter(ROUNDED_NUMBER.fullmatch, column.values):
        raise UserError(
            f"{column.cell(value)}, a rounded number that merges patients. Use a file that was "
            f"not saved by a spreadsheet, or {remedy}"
        )
    return column.cells


def infer_patients(
    csv: Path,
    header: Column | None,
    ids: Sequence[str],
    paths: Sequence[str],
    likely: Sequence[str],
) -> tuple[np.ndarray | None, str]:
    """Patients (N,) str from image paths or DICOM headers, else None, and a note for the user.

    The note suggests the `likely` patient columns.
    """
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        note = f"Patients are read from the image paths, such as '{patients[0]}' in {ids[0]}."
        return np.array(patients, dtype=object), note
    if header is not None:
        return patients_of(header.cells, paths)
    hint = f" (perhaps {list_first(likely)})" if likely else ""
    return None, (
        f"Warning: {csv} has no known patient column, so images of one patient may be in two folds "
        f"and inflate every score. Name it with --patient_column{hint}."
    )
