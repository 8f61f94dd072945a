"""Patients, studies and views of images by columns, paths and DICOM headers."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column
from core.data.images.dicom.header import from_headers, patients_of
from core.errors import UserError

# 1.90E+38 is what a spreadsheet makes of a long number: many patients become one.
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
PATIENT_IN_PATH = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]")


def ask_headers(csv: Path, paths: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
    """Those of `FIELDS` that are `wanted`, as `from_headers` finds them; without blank columns."""
    headers = from_headers(paths) if wanted else {}
    told = {}
    for name in wanted if headers else ():
        codes, values = pd.factorize(headers[name])
        if name == "patient" or any(values):
            told[name] = Column(name, csv, codes.astype(np.int32), values.tolist())
    return told


def patients_of_column(column: Column) -> np.ndarray:
    """Patients (N,) str. Raises UserError where one is blank, or a spreadsheet has rounded them."""
    way_out = "pass --patient_column none, and the folds may share patients."
    if "" in column.values:
        raise UserError(
            f"{column.place('')} names no patient in column '{column.name}'. Fill it in, or "
            f"{way_out}"
        )
    for value in filter(ROUNDED_NUMBER.fullmatch, column.values):
        raise UserError(
            f"{column.cell(value)}, a rounded number that merges many patients into one. Use a "
            f"file that was not saved by a spreadsheet, or {way_out}"
        )
    return column.cells


def patients_without_column(
    csv: Path, header: Column | None, ids: Sequence[str], paths: Sequence[str]
) -> tuple[np.ndarray | None, str]:
    """Patients (N,) str by the images' names, else by DICOM headers, or None; and a sentence."""
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        note = f"Patients are taken from the images' paths, such as '{patients[0]}' in {ids[0]}."
        return np.array(patients, dtype=object), note
    if header is not None:
        return patients_of(header.cells, paths)
    return None, (
        f"Warning: {csv} has no known patient column, so that images of one patient may fall into "
        "two folds and inflate every number. Name it with --patient_column."
    )
