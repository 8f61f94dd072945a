"""A CSV as columns of text, found by the names that real files use."""

import csv
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.text import MOST_CELLS, most_cells, open_text
from core.errors import UserError, nearest, plain, some

# Compared without case and punctuation, and in this order where a file has several.
IMAGE_COLUMNS = (
    *("ImageID", "Image_name", "Image Index", "dicom_id", "Path", "fpath"),
    *("image_path", "file_path", "filename", "file", "image"),
)
PATIENT_COLUMNS = ("PatientID", "subject_id", "deid_patient_id", "patient", "subject")
STUDY_COLUMNS = ("StudyID", "study", "AccessionNumber", "StudyInstanceUID", "exam_id")
VIEW_COLUMNS = ("ViewPosition", "view", "projection", "Frontal/Lateral", "AP/PA")
# These may hold nothing but 0 and 1, and still are no finding.
OTHER_COLUMNS = (
    *("index", "idx", "serial", "sno", "srno", "row", "number", "no", "nr", "num", "id", "level"),
    *("sheet", "batch", "series"),
    *("instance", "sequence", "order", "counter"),
    *("age", "sex", "gender", "male", "female", "m/f", "malesex", "birth"),
    *("PresentationLUTShape", "TransferSyntaxUID", "FrameNumber"),
    *("race", "ethnicity"),
    *("bmi", "height", "weight", "pediatric", "insurance", "language", "marital_status"),
    *("date", "time", "year", "month", "day", "visit", "timepoint", "Follow-up #", "followup_days"),
    *("split", "OfficialSplit", "fold", "set", "subset", "partition", "train", "val", "valid"),
    *("validation", "test", "site", "hospital", "institution", "center", "dataset", "source"),
    *("manufacturer", "scanner", "width", "rows", "columns", "channels", "bits", "size"),
    *("frontal", "lateral", "ap", "pa", "laterality", "orientation", "position", "direction"),
    *("xmin", "xmax", "ymin", "ymax", "pixelspacing_x", "pixelspacing_y", "folder", "dir"),
    "OriginalImagePixelSpacing[x",
    *("rad_id", "reader", "radiologist", "annotator", "rater", "accession"),
)
# What stands before and after such a name: PatientSex, Sex_code, cv_fold, fold_0, is_test.
_BEFORE = re.compile(
    r"^(?:patient|subject|study|image|img|sample|case|exam|official|validation|val|train|test|cv|k"
    r"|is|has|fu)"
)
_AFTER = re.compile(
    r"(?:code|count|encoded|binary|bin|flag|group|id|idx|index|name|no|nr|num|number|male|female"
    r"|0f|ap|pa|view|type|visit|atbirth|m|f|s|\d+)$"
)
# What tools add to a DICOM keyword: dicom_SeriesNumber, SeriesNumber_x, SeriesNumber.1; or a tag.
_DICOM_BEFORE = re.compile(r"^(?:dicom|dcm)[\W_]*", re.IGNORECASE)
_DICOM_AFTER = re.compile(r"(?:[\W_]+(?:x|y|left|right|dicom|\d+))+$", re.IGNORECASE)
_DICOM_TAG = re.compile(r"\W*(?:0x)?[0-9a-f]{4}\W*[0-9a-f]{4}\W*", re.IGNORECASE)
_LONGEST_NAME = 100
_DICOM_NAMES = Path(__file__).with_name("dicom_names.txt")
# read in pieces, of which each distinct text is kept once
CELLS_AT_ONCE = 2_000_000
MOST_TEXTS = 5_000_000


@dataclass(frozen=True, eq=False)
class Column:
    """One column: cell i holds the text `values[codes[i]]`, stripped of white space."""

    codes: np.ndarray  # (N,) int
    values: list[str]  # the distinct cells
    rows: np.ndarray | None = None
    """(N,) the row of the file that each cell is from; None where they are all there in order"""
    path: Path | None = None
    """The file where it is another than the table's own"""

    @property
    def cells(self) -> np.ndarray:
        """The texts of all rows, an object array (N,)."""
        return np.array(self.values, dtype=object)[self.codes]

    @property
    def counts(self) -> np.ndarray:
        """How many rows hold each of `values`."""
        return np.bincount(self.codes, minlength=len(self.values))

    def row_of(self, wanted: str) -> int:
        """The row of the file, counted from 1 with its header, that first holds this text."""
        return self.row_at(int((self.codes == self.values.index(wanted)).argmax()))

    def row_at(self, position: int) -> int:
        """The row of the file, counted from 1 with its header, of the cell at this position."""
        return position + 2 if self.rows is None else int(self.rows[position])

    def place(self, table: Path, wanted: str) -> str:
        """Where this text is first, for a sentence; `table` is the file read by the user's wish."""
        return f"{self.path or table}: row {self.row_of(wanted)} (the header is row 1)"


def take_rows(columns: dict[str, Column], positions: np.ndarray) -> dict[str, Column]:
    """These rows of all columns, (M,) int or (N,) bool; values that no row holds any more go."""
    positions = np.flatnonzero(positions) if positions.dtype == bool else positions
    in_order = (positions + 2).astype(np.int32)
    taken: dict[str, Column] = {}
    numbers = {id(None): in_order}  # columns of one file share their row numbers
    for name, column in columns.items():
        if id(column.rows) not in numbers and column.rows is not None:
            numbers[id(column.rows)] = column.rows[positions]
        codes = column.codes[positions]
        held = np.flatnonzero(np.bincount(codes, minlength=len(column.values)))
        moved = np.zeros(len(column.values), dtype=codes.dtype)
        moved[held] = np.arange(len(held))
        values = [column.values[code] for code in held.tolist()]
        taken[name] = replace(
            column, codes=moved[codes], values=values, rows=numbers[id(column.rows)]
        )
    return taken


def read_columns(path: Path) -> dict[str, Column]:
    """Read a file separated by commas, tabs, semicolons or bars, plain or .gz: "00012" stays so.

    Raises UserError where there is no such file, or where it is no table of UTF-8 text with a
    header, named columns and at least one row, all of one length; and where it is larger than a
    table of images can be.
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
    held: list[_Cells] = []
    most = MOST_TEXTS * most_cells() // MOST_CELLS
    with open_text(path) as (text, checked):
        # Not dtype="category", which takes four times as long.
        frames = pd.read_csv(
            text,
            sep=checked.separator,
            header=None,
            dtype=object,
            keep_default_na=False,
            chunksize=max(2, CELLS_AT_ONCE // max(1, checked.width)),
        )
        for frame in frames:
            rows = frame
            if not names:
                names = _names(path, frame.iloc[0])
                held = [_Cells() for _ in names]
                rows = frame.iloc[1:]
            for position, cells in enumerate(held):
                cells.add(rows[position].to_numpy())
            is_many = sum(cells.different for cells in held) > most
            if is_many and sum(len(cells.column().values) for cells in held) > most:
                raise UserError(
                    f"{path} has more than {most:,} different texts in its cells: leave out "
                    "columns that are not needed, or raise CXR_MAX_CELLS."
                )
    columns = {name: cells.column() for name, cells in zip(names, held, strict=True)}
    last = columns[names[-1]]
    if not len(last.codes):
        raise UserError(f"{path} has a header and no rows: it needs one row for each image.")
    if "" in last.values and (checked.has_odd_quotes or checked.fewest_cells < len(names)):
        _refuse_short_rows(path, len(names), checked.separator)
    return columns


def _names(path: Path, header: Iterable[object]) -> list[str]:
    names = [str(name).strip() for name in header]
    repeated = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if repeated:
        raise UserError(f"{path}: more than one column is named {some(repeated)}. Rename them.")
    return names


class _Cells:
    """The cells of one column, as they come."""

    def __init__(self) -> None:
        self.different = 0
        """At least as many as there are different ones"""
        self._texts: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []

    def add(self, cells: np.ndarray) -> None:
        """Some rows more."""
        codes, texts = pd.factorize(cells)
        self._codes.append((codes + self.different).astype(np.int32))
        self._texts.append(texts)
        self.different += len(texts)

    def column(self) -> Column:
        """All of them, stripped; each different one is kept once from here on."""
        texts = [text.strip() for one in self._texts for text in one]
        codes, values = pd.factorize(np.array(texts, dtype=object))
        self._codes = [codes.astype(np.int32)[np.concatenate(self._codes)]]
        self._texts, self.different = [values], len(values)
        return Column(self._codes[0], values.tolist())


def _refuse_short_rows(path: Path, cells: int, separator: str) -> None:
    """Refuse a row that ends early, which pandas would silently fill up with blanks."""
    with open_text(path) as (text, _):
        reader = csv.reader(text, delimiter=separator)
        try:
            for row in reader:
                if len(row) < cells and "".join(row).strip():
                    raise UserError(
                        f"{path} is not a regular table: line {reader.line_num} has {len(row)} "
                        f"cells where the header has {cells}. Is the file cut short?"
                    )
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error


def find_column(
    path: Path, names: Iterable[str], requested: str, known: Sequence[str], flag: str
) -> str | None:
    """The requested column; without a request the first of the known names that the file has.

    "none" asks for no column. Raises UserError for a request that the file does not have, and
    where two columns differ in case and punctuation only, and neither is as the known name is.
    """
    names = list(names)
    if requested.lower() == "none":
        return None
    if requested:
        if requested not in names:
            raise UserError(
                f"{path} has no column '{requested}' ({flag}){nearest(requested, names)}."
            )
        return requested
    alike: dict[str, list[str]] = {}
    for one in names:
        alike.setdefault(plain(one), []).append(one)
    for name in known:
        present = alike.get(plain(name), [])
        if len(present) > 1 and name not in present:
            which = f"name one of them with {flag}" if flag else "rename one of them"
            raise UserError(
                f"{path} has the columns {' and '.join(present[:2])}, which differ in case or "
                f"punctuation only: {which}."
            )
        if present:
            return name if name in present else present[0]
    return None


def is_known_non_label(name: str) -> bool:
    """Whether a column of this name is never a finding: identifiers, age, dates, DICOM headers."""
    key = plain(name)
    if not key or key.startswith("unnamed") or name == "y]":
        return True  # "y]": NIH's "OriginalImagePixelSpacing[x,y]", which its comma cuts in two
    if key in _NON_LABELS or key.removesuffix("dicom") in _dicom_names():
        return True
    if len(key) > _LONGEST_NAME:
        return False
    if _DICOM_TAG.fullmatch(name) or plain(_DICOM_AFTER.sub("", _DICOM_BEFORE.sub("", name))) in (
        _dicom_names()
    ):
        return True
    for stem in (key, _BEFORE.sub("", key)):
        while len(stem) > 1:
            if stem in _NON_LABELS:
                return True
            stem, found = _AFTER.subn("", stem)
            if not found:
                break
    return False


@cache
def _dicom_names() -> frozenset[str]:
    """Keywords of PS3.6 for patient, study, equipment, acquisition and image, made plain."""
    return frozenset(map(plain, _DICOM_NAMES.read_text(encoding="ascii").split()))


_NON_LABELS = set(
    map(plain, IMAGE_COLUMNS + PATIENT_COLUMNS + STUDY_COLUMNS + VIEW_COLUMNS + OTHER_COLUMNS)
)
