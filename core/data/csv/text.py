"""The text of a CSV, plain or compressed: opened, and looked at before memory goes into it."""

import csv
import gzip
import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from core.errors import UserError
from core.io.untrusted_files import check_regular

# A million images with sixty labels each stay below all of these. A few kilobytes, compressed, can
# hold gigabytes of text, and a text in memory takes some sixty bytes more than it has letters.
LARGEST_TEXT = 500_000_000
MOST_CELLS = 100_000_000
MOST_COLUMNS = 10_000
LONGEST_HEADER = 1_000_000
_BLOCK = 2**20
SEPARATORS = ",\t;|"


def open_text(path: Path) -> TextIO:
    """The decoded text, with its ends of lines as they are."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def read_layout(path: Path) -> tuple[str, int]:
    """The character between two cells, and how many cells the header has; 0 where there is none.

    Raises UserError where the file is no file on a disk, has NUL bytes, or is larger than a table
    of images can be; OSError, EOFError, zlib.error and UnicodeDecodeError where it cannot be read.
    """
    try:
        check_regular(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        _check_size(path, cast(BinaryIO, file))
    with open_text(path) as text:
        start = text.read(LONGEST_HEADER)
    separator = max(SEPARATORS, key=lambda one: _rank_separator(start, one))
    lines = io.StringIO(start, newline="")
    try:
        rows = csv.reader(lines, delimiter=separator)
        header = next((row for row in rows if "".join(row).strip()), [])
    except csv.Error as error:
        raise UserError(f"{path} has no header of columns' names: {error}.") from error
    # cut in the middle of it, or blank so far
    if len(start) == LONGEST_HEADER and not lines.read(1):
        raise UserError(
            f"{path} has no header of columns' names within its first {LONGEST_HEADER:,} letters."
        )
    if len(header) > MOST_COLUMNS:
        raise UserError(
            f"{path} has {len(header):,} columns, and a table of images at most {MOST_COLUMNS:,}: "
            "is it turned on its side?"
        )
    return separator, len(header)


def _rank_separator(start: str, separator: str) -> tuple[bool, bool, int]:
    """Best is one by which the first row has as many cells as the header; of several, the comma."""
    rows: list[int] = []
    with suppress(csv.Error):  # a cell without end
        for row in csv.reader(io.StringIO(start, newline=""), delimiter=separator):
            if "".join(row).strip():
                rows.append(len(row))
            if len(rows) == 2:
                break
    # a separator that separates nothing is none
    header = rows[0] if rows and rows[0] > 1 else 0
    return header > 0 and header == rows[-1], header > 0 and separator == ",", header


def _check_size(path: Path, file: BinaryIO) -> None:
    size = cells = 0
    while block := file.read(_BLOCK):
        size += len(block)
        cells += max(block.count(mark.encode()) for mark in SEPARATORS)
        cells += max(block.count(b"\n"), block.count(b"\r"))
        if b"\0" in block:
            raise UserError(
                f"{path} is not UTF-8 text (it holds NUL bytes): save it as CSV in UTF-8."
            )
        if size > LARGEST_TEXT or cells > MOST_CELLS:
            raise UserError(
                f"{path} is no table of images: it has more than {LARGEST_TEXT / 1e6:,.0f} MB of "
                f"text or {MOST_CELLS:,} cells. Leave out columns that are not needed."
            )
