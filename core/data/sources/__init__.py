"""Readers of public datasets, one module each; all return a SourceTable with one row per image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from core.config.data import LabelReading
from core.data.csv.columns import Column, read_columns
from core.data.sources import chexpert, cxr_lt, mimic, nih, padchest, vindr
from core.data.sources.source_table import SourceTable
from core.errors import UserError, suggest_name

PLAIN = "plain"


@dataclass(frozen=True)
class Source:
    """Reader of a public dataset."""

    table: str
    """Name in messages"""
    matches: Callable[[Path, dict[str, Column]], bool]
    read: Callable[[Path, dict[str, Column]], SourceTable]


# tried in this order
SOURCES: Mapping[str, Source] = {
    "nih": Source("NIH ChestX-ray14's table", nih.matches, nih.read),
    "chexpert": Source("CheXpert's table", chexpert.matches, chexpert.read),
    "mimic": Source("MIMIC-CXR-JPG's table", mimic.matches, mimic.read),
    "cxr_lt": Source("a table of CXR-LT 2023 or 2024", cxr_lt.matches, cxr_lt.read),
    "padchest": Source("a table of PadChest or CXR-LT 2026", padchest.matches, padchest.read),
    "vindr": Source("VinDr-CXR's table", vindr.matches, vindr.read),
}


def recognise(path: Path, columns: dict[str, Column]) -> str:
    """Detect the source by its columns; "plain" for any other table."""
    for name, source in SOURCES.items():
        if source.matches(path, columns):
            return name
    return PLAIN


def read_source_table(path: Path, reading: LabelReading | None = None) -> SourceTable:
    """Read a dataset's table or a plain CSV, with one row per image and one column per label.

    Without a `source` it is detected by its columns, with a note. Raises UserError for an unknown
    source and missing columns, and like its `read` and `read_columns`.
    """
    reading = reading or LabelReading()
    if len(reading.source) > 1:
        raise UserError(f"--source has {len(reading.source)} values for one CSV, {path}: give one")
    source = next(iter(reading.source), "")
    if source and source not in (*SOURCES, PLAIN):
        raise UserError(f"there is no --source '{source}'{suggest_name(source, (*SOURCES, PLAIN))}")
    columns = read_columns(path)
    name = source or recognise(path, columns)
    if name == PLAIN:
        return SourceTable(path=path, columns=columns)
    known = SOURCES[name]
    read = partial(vindr.read, readers=reading.readers) if name == "vindr" else known.read
    # labels per study need no table of images
    if name == "mimic" and reading.image_column in columns:
        read = mimic.read_studies
    sheet = read(path, columns)
    if source:
        return sheet
    note = f"{path} is read as {known.table}, detected by its columns (to disable: --source plain)."
    return replace(sheet, notes=(note, *sheet.notes))
