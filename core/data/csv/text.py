"""The text of a CSV, plain or compressed, read once and checked as it goes by."""

import codecs
import csv
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np

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


def limits() -> tuple[int, int]:
    """The most bytes and the most cells that a CSV may have."""
    return _limit("CXR_MAX_CSV_BYTES", LARGEST_TEXT), _limit("CXR_MAX_CELLS", MOST_CELLS)


def _limit(variable: str, default: int) -> int:
    given = os.environ.get(variable, "")
    if given and not given.isdecimal():
        raise UserError(f"{variable} is a whole number, not '{given}'")
    return int(given or default)


def _count(block: bytes, marks: bytes) -> int:
    # faster than bytes.count where there are many
    values = np.frombuffer(block, np.uint8)
    return sum(int(np.count_nonzero(values == mark)) for mark in marks)


class CheckedBytes(io.RawIOBase):
    """The bytes of a CSV; raises UserError where they are too many, or NUL is among them."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.separator = ""
        self.width = 0
        """Cells of the header; 0 where there is none"""
        self.separators = 0
        """How many stand outside of quotes, so far"""
        self._limits = limits()
        self._size = self._line_ends = 0
        self._is_quoted = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self.file.read(len(buffer))
        buffer[: len(block)] = block
        if b"\0" in block:
            raise UserError(
                f"{self.path} is not UTF-8 text (it holds NUL bytes): save it as CSV in UTF-8."
            )
        if not self.separator:
            self._find_layout(block)
        pieces = block.split(b'"')
        self.separators += _count(b"".join(pieces[self._is_quoted :: 2]), self.separator.encode())
        self._is_quoted ^= len(pieces) % 2 == 0
        self._size += len(block)
        self._line_ends += _count(block, b"\r\n")
        cells = self.separators + self._line_ends
        if self._size > self._limits[0] or cells > self._limits[1]:
            raise UserError(
                f"{self.path} is no table of images: it has more than {self._limits[0] / 1e6:,.0f} "
                f"MB of text or {self._limits[1]:,} cells. Leave out columns that are not needed, "
                "or raise CXR_MAX_CSV_BYTES or CXR_MAX_CELLS."
            )
        return len(block)

    def _find_layout(self, block: bytes) -> None:
        """The separator, and how many cells the header has, by the first block."""
        start = codecs.getincrementaldecoder("utf-8-sig")().decode(block[:LONGEST_HEADER])
        self.separator = max(SEPARATORS, key=lambda one: _rank_separator(start, one))
        lines = io.StringIO(start, newline="")
        try:
            rows = csv.reader(lines, delimiter=self.separator)
            header = next((row for row in rows if "".join(row).strip()), [])
        except csv.Error as error:
            raise UserError(f"{self.path} has no header of columns' names: {error}.") from error
        # cut in the middle of it, or blank so far
        if len(block) >= LONGEST_HEADER and not lines.read(1):
            raise UserError(f"{self.path} has no header in its first {LONGEST_HEADER:,} letters.")
        if len(header) > MOST_COLUMNS:
            raise UserError(
                f"{self.path} has {len(header):,} columns, and a table of images at most "
                f"{MOST_COLUMNS:,}: is it turned on its side?"
            )
        self.width = len(header)


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, CheckedBytes]]:
    """The decoded text, with its ends of lines as they are, and what is known of it.

    Raises UserError where it is no file on a disk, has no header, or is too large; OSError,
    EOFError, zlib.error and UnicodeDecodeError where it cannot be read.
    """
    try:
        check_regular(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        checked = CheckedBytes(path, cast(BinaryIO, file))
        buffered = io.BufferedReader(checked, _BLOCK)
        buffered.peek()
        with io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="") as text:
            yield text, checked


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
