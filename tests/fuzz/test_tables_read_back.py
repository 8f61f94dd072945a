"""Round trip of label tables with any names."""

import csv
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.csv.columns import read_columns
from core.data.splits.folds import write_folds
from core.data.tables import read_table
from core.errors import UserError, escape_control
from core.runs.prediction_files import read_predictions
from tests.helpers.fault_table import Fault

# letters of all scripts, quotes, commas, line feeds and what a terminal obeys; no halves of
# letters, no NUL, and no carriage return, which Python's own writer does not quote
LETTERS = st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])
TEXTS = st.text(LETTERS, min_size=1, max_size=20) | st.sampled_from(
    ["NA", "null", "1e5", "007", "=1+1", "a,b", 'say "x"', "a\nb", "é", "e\u0301", "#", "'"]
)
# texts are stripped, and a mark of the encoding is none of the first name
NAMES = TEXTS.map(str.strip).filter(bool).filter(lambda name: not name.startswith("\ufeff"))
# what leaves the folder is refused, and tested elsewhere
IDS = st.lists(NAMES.filter(lambda name: ".." not in name), min_size=1, max_size=8, unique=True)
CLASSES = st.lists(
    NAMES.filter(lambda name: escape_control(name) == name), min_size=1, max_size=5, unique=True
)
NUMBERS = st.floats(0, 1).map(repr) | st.sampled_from(["0", "1", "-0", "5e-1", "1e-400", ".5"])
# what has a meaning in a CSV comes often
PIECES = TEXTS | st.sampled_from([*',\n"\r', '""', "\ufeff", "ImageID", "Mass", "1", "0", " "])
CELLS = {
    **dict.fromkeys(("1", "1.0", "1.00", "+1", "1e0", "10E-1", "TRUE", "Yes"), 1.0),
    **dict.fromkeys(("0", "0.0", "0.00", "-0", "0e0", "False", "no"), 0.0),
    **dict.fromkeys(("-1", "-1.00", "", "NA", "NaN", "None", "NULL", "<NA>"), math.nan),
}
MANY, FEW = 2000, 60


def settings_of(soak: bool) -> settings:
    # a page of random text now and then takes long where two cores are shared
    return settings(
        max_examples=MANY if soak else FEW,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


def written(path: Path, rows: list[list[str]], quoting: Literal[0, 1], end: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=quoting, lineterminator=end).writerows(rows)
    return path


@given(
    st.data(),
    IDS,
    CLASSES,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def check_labels_and_predictions(
    folder: Path,
    data: st.DataObject,
    ids: list[str],
    classes: list[str],
    quoting: Literal[0, 1],
    end: str,
) -> None:
    """Labels and predictions that Python writes are read as they are."""
    if not {"the image", "ImageID"}.isdisjoint(classes):
        return
    cells = [[data.draw(st.sampled_from(list(CELLS))) for _ in classes] for _ in ids]
    rows = [["the image", *classes], *([name, *row] for name, row in zip(ids, cells, strict=True))]
    path = written(folder / "labels.csv", rows, quoting, end)
    columns: dict[str, Any] = dict.fromkeys(
        ("patient_column", "study_column", "view_column"), "none"
    )
    columns |= {"image_column": "the image", "source": "plain", "blank": "unknown"}
    table = read_table(path, None, classes, **columns)
    assert (table.ids, table.class_names) == (ids, tuple(classes))
    truth = np.array([[CELLS[cell] for cell in row] for row in cells], dtype=np.float32)
    np.testing.assert_array_equal(table.targets, truth)
    assert all(escape_control(note) == note for note in table.notes)
    write_folds(folder / "folds.csv", table, np.zeros(len(ids), dtype=int))
    with (folder / "folds.csv").open(encoding="utf-8", newline="") as file:
        assert [row["ImageID"] for row in csv.DictReader(file)] == ids
    numbers = [[data.draw(NUMBERS) for _ in classes] for _ in ids]
    rows = [["ImageID", *classes], *([name, *row] for name, row in zip(ids, numbers, strict=True))]
    read = read_predictions(written(folder / "predictions.csv", rows, quoting, end))
    assert (read.ids, read.class_names) == (ids, tuple(classes))
    floats = np.array([[float(cell) for cell in row] for row in numbers])
    np.testing.assert_allclose(read.probabilities, floats, rtol=1e-15, atol=1e-300)


@given(st.lists(PIECES, max_size=40).map("".join))
def check_any_text(folder: Path, text: str) -> None:
    """Any text is refused, or read as another parser reads it, which takes row after row."""
    path = folder / "any.csv"
    path.write_bytes(text.encode())
    try:
        columns = read_columns(path)
    except UserError as error:
        sentence = str(error)
        assert str(path) in sentence
        assert escape_control(sentence) == sentence
        return
    counts = {len(column.codes) for column in columns.values()}
    assert len(counts) == 1
    if not {*'"\t;|'}.isdisjoint(text):
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if "".join(row).strip() or len(row) > 1]
    assert counts == {len(rows) - 1}
    if len(columns) < len(rows[0]):
        assert "" in columns  # several columns without a name are kept as one
        return
    cells = np.array([column.cells for column in columns.values()], dtype=object).T
    # a row of blank cells may be short
    expected = [[cell.strip() for cell in row] for row in rows[1:]]
    filled = [row if any(row) else [""] * len(columns) for row in expected]
    assert filled == cells.tolist()


def test_labels_and_predictions(tmp_path: Path, soak: bool, fault: Fault) -> None:
    fault("any names in a CSV", MANY if soak else FEW)
    settings_of(soak)(check_labels_and_predictions)(tmp_path)


def test_any_text(tmp_path: Path, soak: bool, fault: Fault) -> None:
    fault("hostile CSV", MANY if soak else FEW)
    settings_of(soak)(check_any_text)(tmp_path)
