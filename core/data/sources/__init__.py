"""Public datasets' own tables, each read by one file, as sheets of one row an image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from core.data.csv.columns import Column, read_columns
from core.data.sources import chexpert, cxr_lt, mimic, nih, padchest, vindr
from core.data.sources.sheet import Sheet
from core.errors import UserError, nearest

PLAIN = "plain"


@dataclass(frozen=True)
class Source:
    """A dataset whose own table is known."""

    table: str
    """What it is called in a sentence"""
    matches: Callable[[Path, dict[str, Column]], bool]
    read: Callable[[Path, dict[str, Column]], Sheet]


# in the order in which they are tried
SOURCES: Mapping[str, Source] = {
    "nih": Source("NIH ChestX-ray14's table", nih.matches, nih.read),
    "chexpert": Source("CheXpert's table", chexpert.matches, chexpert.read),
    "mimic": Source("MIMIC-CXR-JPG's table", mimic.matches, mimic.read),
    "cxr_lt": Source("a table of CXR-LT 2023 or 2024", cxr_lt.matches, cxr_lt.read),
    "padchest": Source("a table of PadChest or CXR-LT 2026", padchest.matches, padchest.read),
    "vindr": Source("VinDr-CXR's table", vindr.matches, vindr.read),
}


def recognise(path: Path, columns: dict[str, Column]) -> str:
    """The source whose columns these are; "plain" for any other table."""
    for name, source in SOURCES.items():
        if source.matches(path, columns):
            return name
    return PLAIN


def read_sheet(
    csv: str | Path,
    source: str | None = None,
    *,
    image_column: str | None = None,
    readers: str = "majority",
) -> Sheet:
    """Read a source's table, or a plain CSV, as one row an image and one column a label.

    Without `source` it is told by its columns, and a note says so. `image_column` is what the user
    says that the images' names are in, or MIMIC-CXR's studies. `readers` (majority, any) says how
    the labels of several readers become one. Raises UserError for a source that is not known,
    columns that it lacks, and as the source's own `read` and `read_columns` do.
    """
    path = Path(csv)
    if source is not None and source not in (*SOURCES, PLAIN):
        raise UserError(f"there is no --source '{source}'{nearest(source, (*SOURCES, PLAIN))}")
    if readers not in vindr.READERS:
        raise UserError(f"--readers {readers} is none of {', '.join(vindr.READERS)}.")
    columns = read_columns(path)
    name = source or recognise(path, columns)
    if name == PLAIN:
        return Sheet(columns=columns)
    known = SOURCES[name]
    read = partial(vindr.read, readers=readers) if name == "vindr" else known.read
    # labels by study that are to be read as such need no table of images
    if name == "mimic" and image_column in columns:
        read = mimic.read_studies
    sheet = read(path, columns)
    if source is not None:
        return sheet
    note = f"{path} is read as {known.table}, by its columns (--source plain: as it is)."
    return replace(sheet, notes=(note, *sheet.notes))
