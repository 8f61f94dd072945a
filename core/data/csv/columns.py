"""CSV columns as coded text, with lookup by the usual column names."""

import csv
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.csv.text import MOST_CELLS, limits, open_text
from core.errors import UserError, list_first, normalize_name, suggest_name

# compared without case and punctuation; the first match is used
IMAGE_COLUMNS = (
    *("ImageID", "Image_name", "Image Index", "dicom_id", "Path", "fpath"),
    *("image_path", "file_path", "filename", "file", "image"),
)
# of version 0.1; AS_EARLIER, which is no header's text, asks for these alone
EARLIER_PATIENT_COLUMNS = ("PatientID", "subject_id", "deid_patient_id", "patient", "subject")
AS_EARLIER = "\n0.1"
PATIENT_COLUMNS = (
    *(*EARLIER_PATIENT_COLUMNS, "MRN", "patient_mrn", "medical_record_number"),
    *("medical_record_no", "medical_record_id", "medical_record", "pid", "pat_id", "pt_id"),
    *("patient_no", "patient_nr", "patient_number", "patient_num", "patient_code", "patient_key"),
    *("patient_uid", "subject_no", "subject_number"),
    *("person_id", "participant_id", "participant"),
)
STUDY_COLUMNS = ("StudyID", "study", "AccessionNumber", "StudyInstanceUID", "exam_id")
VIEW_COLUMNS = ("ViewPosition", "view", "projection", "Frontal/Lateral", "AP/PA")
# cells per chunk; each distinct text is stored once
CELLS_AT_ONCE = 2_000_000
MOST_TEXTS = 5_000_000


@dataclass(frozen=True, eq=False)
class Column:
    """Column of a CSV: cell i is the text `values[codes[i]]`, without surrounding white space."""

    name: str
    path: Path
    codes: np.ndarray  # (N,) int
    values: list[str]  # the distinct cells
    rows: np.ndarray | None = None
    """(N,) row in the file of each cell; None if all rows are present, in order"""

    @property
    def cells(self) -> np.ndarray:
        """Texts of all rows, an object array (N,)."""
        return np.array(self.values, dtype=object)[self.codes]

    @property
    def counts(self) -> np.ndarray:
        """Number of rows of each of `values`."""
        return np.bincount(self.codes, minlength=len(self.values))

    def each(self, function: Callable[[str], Any]) -> np.ndarray:
        """Results of `function` for the text of each row, (N,); called once per distinct text."""
        return np.array([function(text) for text in self.values])[self.codes]

    def with_texts(self, name: str, texts: Iterable[str]) -> "Column":
        """Column with each of `values` replaced by one of `texts`."""
        codes, values = pd.factorize(np.array([*texts], dtype=object))
        codes = codes.astype(np.int32)[self.codes]
        return replace(self, name=name, codes=codes, values=values.tolist())

    def row_of(self, wanted: str) -> int:
        """First row of this text in the file, counted from 1 with the header."""
        return self.row_at(int((self.codes == self.values.index(wanted)).argmax()))

    def row_at(self, position: int) -> int:
        """Row in the file of the cell at this position, counted from 1 with the header."""
        return position + 2 if self.rows is None else int(self.rows[position])

    def place(self, wanted: str) -> str:
        """Location of the first cell with this text, for a message."""
        return f"{self.path}: row {self.row_of(wanted)} (the header is row 1)"

    def cell(self, wanted: str) -> str:
        """Location and content of the first cell with this text, for a message."""
        return f"{self.place(wanted)}, column '{self.name}' holds '{wanted[:60]}'"


def take_rows(columns: dict[str, Column], positions: np.ndarray) -> dict[str, Column]:
    """Select rows of all columns, (M,) int or (N,) bool; unused values are dropped."""
    positions = np.flatnonzero(positions) if positions.dtype == bool else positions
    in_order = (positions + 2).astype(np.int32)
    taken: dict[str, Column] = {}
    # columns of one file share their row numbers
    rows = {id(c.rows): in_order if c.rows is None else c.rows[positions] for c in columns.values()}
    for name, column in columns.items():
        codes = column.codes[positions]
        is_held = np.bincount(codes, minlength=len(column.values)) > 0
        moved = (np.cumsum(is_held) - 1).astype(codes.dtype)
        values = list(compress(column.values, is_held))
        own = rows[id(column.rows)]
        taken[name] = replace(column, codes=moved[codes], values=values, rows=own)
    return taken


def read_columns(path: Path) -> dict[str, Column]:
    """Read a table separated by commas, tabs, semicolons or bars, optionally .gz, as text.

    Raises UserError if the file is missing or too large, is not UTF-8, has no header or no rows, or
    has rows of different lengths.
    """
    if not path.exists():
        raise UserError(
            f"There is no file {path}. To try this without data of your own, run `python -m "
            "core.data.phantom data` and then `python methods/standard_head/train.py`."
        )
    try:
        return _read(path)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty: it needs a header and one row for each image.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason}): save it as CSV in UTF-8."
        ) from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise UserError(
            f"{path} is not a regular table: {reason}. Each row needs as many cells as the header."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _read(path: Path) -> dict[str, Column]:
    names: list[str] = []
    builders: list[_ColumnBuilder] = []
    most = MOST_TEXTS * limits()[1] // MOST_CELLS
    with open_text(path) as (text, checked):
        # dtype="category" takes four times as long
        frames = pd.read_csv(
            text,
            sep=checked.separator,
            header=None,
            dtype=object,
            keep_default_na=False,
            chunksize=max(2, CELLS_AT_ONCE // max(1, checked.width)),
        )
        for frame in frames:
            is_first = not names
            if is_first:
                names = [str(name).strip() for name in frame.iloc[0]]
                builders = [_ColumnBuilder() for _ in names]
            for position, builder in enumerate(builders):
                builder.add(frame[position].to_numpy()[is_first:])
            is_many = sum(builder.size for builder in builders) > most
            if is_many and sum(len(builder.build()[1]) for builder in builders) > most:
                raise UserError(
                    f"{path} has more than {most:,} different texts in its cells: remove unneeded "
                    "columns, or raise CXR_MAX_CELLS."
                )
    if repeated := sorted(name for name, n in Counter(names).items() if name and n > 1):
        raise UserError(
            f"{path}: more than one column is named {list_first(repeated)}. Rename them."
        )
    columns = {n: Column(n, path, *b.build()) for n, b in zip(names, builders, strict=True)}
    last = columns[names[-1]]
    if not len(last.codes):
        raise UserError(f"{path} has a header and no rows: it needs one row for each image.")
    # pandas pads short rows with blanks
    if "" in last.values and checked.separators != (len(names) - 1) * (len(last.codes) + 1):
        _refuse_short_rows(path, len(names), checked.separator)
    return columns


class _ColumnBuilder:
    """Collects the cells of one column, chunk by chunk."""

    def __init__(self) -> None:
        self.size = 0
        """Texts stored: at least the number of distinct ones"""
        self._texts: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []

    def add(self, cells: np.ndarray) -> None:
        codes, texts = pd.factorize(cells)
        self._codes.append((codes + self.size).astype(np.int32))
        self._texts.append(texts)
        self.size += len(texts)

    def build(self) -> tuple[np.ndarray, list[str]]:
        """Codes and distinct stripped texts of all chunks; duplicates are then freed."""
        texts = [text.strip() for one in self._texts for text in one]
        codes, values = pd.factorize(np.array(texts, dtype=object))
        self._codes = [codes.astype(np.int32)[np.concatenate(self._codes)]]
        self._texts, self.size = [values], len(values)
        return self._codes[0], values.tolist()


def _refuse_short_rows(path: Path, cells: int, separator: str) -> None:
    with open_text(path) as (text, _):
        reader = csv.reader(text, delimiter=separator)
        try:
            short = next((r for r in reader if len(r) < cells and "".join(r).strip()), None)
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if short is not None:
        raise UserError(
            f"{path} is not a regular table: line {reader.line_num} has {len(short)} cells and "
            f"the header {cells}. Check that the file is complete."
        )


def find_column(
    path: Path, names: Iterable[str], requested: str, known: Sequence[str], flag: str
) -> str | None:
    """The requested column ("none" for none), or the first of the known names in the file.

    Raises UserError if the requested column is missing, and if two columns match that differ only
    in case and punctuation.
    """
    if requested.lower() == "none":
        return None
    names = list(names)
    if requested and requested not in names:
        raise UserError(
            f"{path} has no column '{requested}' ({flag}){suggest_name(requested, names)}."
        )
    for name in (requested,) if requested else known:
        present = [one for one in names if normalize_name(one) == normalize_name(name)]
        if name in present:
            return name
        if len(present) > 1:
            which = f"name one of them with {flag}" if flag else "rename one of them"
            raise UserError(
                f"{path} has the columns {' and '.join(present[:2])}, which differ only in case or "
                f"punctuation: {which}."
            )
        if present:
            return present[0]
    return None


def find_image_column(
    path: Path, columns: Mapping[str, Column], requested: str, known: Sequence[str] = IMAGE_COLUMNS
) -> str:
    """`find_column` for the image names. Raises UserError if the file has no such column."""
    if name := find_column(path, columns, requested, known, "--image_column"):
        return name
    hint = suggest_name(IMAGE_COLUMNS[0], columns)
    raise UserError(f"{path} has no column of image names{hint}. Name it with --image_column.")


def find_named(columns: Mapping[str, Column], wanted: str) -> Column | None:
    """The column of this name, ignoring case and punctuation, or None."""
    return next(
        (
            column
            for name, column in columns.items()
            if normalize_name(name) == normalize_name(wanted)
        ),
        None,
    )


def names_among(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that are `known`, ignoring case and punctuation."""
    keys = set(map(normalize_name, known))
    return tuple(name for name in names if normalize_name(name) in keys)


def has_columns(names: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether `names` has all columns `wanted`, ignoring case and punctuation."""
    return set(map(normalize_name, wanted)) <= set(map(normalize_name, names))
