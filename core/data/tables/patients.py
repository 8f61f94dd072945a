"""Whose an image is, of which study and which view: by columns, by paths and by DICOM headers."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column
from core.data.images.dicom.header import FIELDS, from_headers, patients_of
from core.errors import UserError

# 1.90E+38 is what a spreadsheet makes of a long number: many patients become one.
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
PATIENT_IN_PATH = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]")


def without_column(names: Sequence[str | None], requests: Sequence[str]) -> list[str]:
    """Those of `FIELDS` that have no column (in `names`), unless "none" is what the user asked."""
    return [
        field
        for field, name, request in zip(FIELDS, names, requests, strict=True)
        if name is None and request.lower() != "none"
    ]


def ask_headers(paths: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
    """Those of `FIELDS` that are `wanted`, as DICOM headers tell them.

    A study or a view that no header tells is left out; so is all where not every file is DICOM.
    Raises UserError as `from_headers` does.
    """
    headers = from_headers(paths) if wanted else {}
    told = {}
    for name in wanted if headers else ():
        codes, values = pd.factorize(headers[name])
        if name == "patient" or any(values):
            told[name] = Column(codes.astype(np.int32), values.tolist())
    return told


def find_patients(
    path: Path,
    columns: dict[str, Column],
    name: str | None,
    asked: Collection[str],
    headers: dict[str, Column],
    ids: Sequence[str],
    paths: Sequence[str],
) -> tuple[np.ndarray | None, list[str]]:
    """Patients (N,) str of the table at `path`, or None; and sentences about them.

    By the column `name`; without one, where they are `asked` for, by the images' names, else by
    DICOM headers. Raises UserError for patients that are blank or rounded, and as `patients_of`
    does.
    """
    if name is not None:
        _check_patients(path, name, columns[name])
        return columns[name].cells, []
    if "patient" not in asked:
        return None, []
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        return np.array(patients, dtype=object), [
            f"Patients are taken from the images' paths, such as '{patients[0]}' in {ids[0]}."
        ]
    if "patient" in headers:
        told, note = patients_of(headers["patient"].cells, paths)
        return told, [note]
    return None, [
        f"Warning: {path} has no known patient column, so that images of one patient may fall into "
        "two folds and inflate every number. Name it with --patient_column."
    ]


def _check_patients(path: Path, name: str, column: Column) -> None:
    """Raise UserError for a blank patient and for a number that a spreadsheet has rounded."""
    way_out = "pass --patient_column none, and the folds may share patients."
    if "" in column.values:
        raise UserError(
            f"{column.place(path, '')} names no patient in column '{name}'. Fill it in, or "
            f"{way_out}"
        )
    for value in (value for value in column.values if "E" in value or "e" in value):
        if ROUNDED_NUMBER.fullmatch(value):
            raise UserError(
                f"{column.place(path, value)}, column '{name}' holds '{value}', a rounded number "
                "that merges many patients into one. Use a file that was not saved by a "
                f"spreadsheet, or {way_out}"
            )
