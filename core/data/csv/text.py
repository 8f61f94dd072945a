"""CSV text, optionally gzipped: streaming reader with limits on size and cells."""

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

# Enough for a million images with sixty labels. The limits stop decompression bombs; in memory a
# text takes about sixty bytes more than its length.
LARGEST_TEXT = 500_000_000
MOST_CELLS = 100_000_000
MOST_COLUMNS = 10_000
LONGEST_HEADER = 1_000_000
_BLOCK = 2**20
SEPARATORS = ",\t;|"


def limits() -> tuple[int, int]:
    """Maximum bytes and cells of a CSV."""
    return _limit("CXR_MAX_CSV_BYTES", LARGEST_TEXT), _limit("CXR_MAX_CELLS", MOST_CELLS)


def _limit(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UserError(f"{variable} is '{text}': set it to a whole number")
    return int(text or default)


def _count(block: bytes, marks: bytes) -> int:
    # faster than bytes.count if there are many
    values = np.frombuffer(block, np.uint8)
    return sum(int(np.count_nonzero(values == mark)) for mark in marks)


class CheckedBytes(io.RawIOBase):
    """Bytes of a CSV. Raises UserError while reading if there are too many, or a NUL byte."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.separator = ""
        self.width = 0
        """Cells of the header; 0 if there is none"""
        self.separators = 0
        """Separators outside of quotes so far"""
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
                f"{self.path} has more than {self._limits[0] / 1e6:,.0f} MB of text or "
                f"{self._limits[1]:,} cells. Remove unneeded columns, or raise CXR_MAX_CSV_BYTES "
                "or CXR_MAX_CELLS."
            )
        return len(block)

    def _find_layout(self, block: bytes) -> None:
        """Find the separator and the number of header cells in the first block."""
        start = codecs.getincrementaldecoder("utf-8-sig")().decode(block[:LONGEST_HEADER])
        self.separator = max(SEPARATORS, key=lambda one: _rank_separator(start, one))
        lines = io.StringIO(start, newline="")
        try:
            rows = csv.reader(lines, delimiter=self.separator)
            header = next((row for row in rows if "".join(row).strip()), [])
        except csv.Error as error:
            raise UserError(f"{self.path} has no header of column names: {error}.") from error
        # the header is incomplete or still blank
        if len(block) >= LONGEST_HEADER and not lines.read(1):
            raise UserError(
                f"{self.path} has no header in its first {LONGEST_HEADER:,} characters."
            )
        if len(header) > MOST_COLUMNS:
            raise UserError(
                f"{self.path} has {len(header):,} columns; the maximum is {MOST_COLUMNS:,}. Check "
                "that it is not transposed."
            )
        self.width = len(header)


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, CheckedBytes]]:
    """Open the decoded text, with original line ends, and its `CheckedBytes`.

    Raises UserError if it is not a regular file, has no header or is too large; OSError, EOFError,
    zlib.error and UnicodeDecodeError if it cannot be read.
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
    """Sort key; best if the first row has as many cells as the header; ties go to the comma."""
    rows: list[int] = []
    with suppress(csv.Error):  # an unclosed quote
        for row in csv.reader(io.StringIO(start, newline=""), delimiter=separator):
            if "".join(row).strip():
                rows.append(len(row))
            if len(rows) == 2:
                break
    # a single cell means no separator
    header = rows[0] if rows and rows[0] > 1 else 0
    return header > 0 and header == rows[-1], header > 0 and separator == ",", header
