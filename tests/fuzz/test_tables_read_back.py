"""Any table of labels that Python writes is read back as it was, whatever its names are."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.csv.columns import read_columns
from core.data.splits.folds import write_folds
from core.data.tables import read_table
from core.errors import UserError, in_plain_sight
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
    NAMES.filter(lambda name: in_plain_sight(name) == name), min_size=1, max_size=5, unique=True
)
CELLS = {
    **dict.fromkeys(("1", "1.0", "1.00", "+1", "1e0", "10E-1", "TRUE", "Yes"), 1.0),
    **dict.fromkeys(("0", "0.0", "0.00", "-0", "0e0", "False", "no"), 0.0),
    **dict.fromkeys(("-1", "-1.00", "", "NA", "NaN", "None", "NULL", "<NA>"), math.nan),
}
# a page of random text now and then takes long where two cores are shared
MANY = settings(
    max_examples=2000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FEW = settings(MANY, max_examples=60)


def written(path: Path, rows: list[list[str]], quoting: int, end: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=quoting, lineterminator=end).writerows(rows)  # type: ignore[arg-type]
    return path


def labels_are_read_back(folder: Path) -> Callable[[st.DataObject], None]:
    def check(data: st.DataObject) -> None:
        ids, classes = data.draw(IDS), data.draw(CLASSES)
        cells = [[data.draw(st.sampled_from(list(CELLS))) for _ in classes] for _ in ids]
        quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        rows = [
            ["the image", *classes],
            *([name, *row] for name, row in zip(ids, cells, strict=True)),
        ]
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        path = written(folder / "labels.csv", rows, quoting, end)
        if "the image" in classes:
            return
        table = read_table(
            path,
            None,
            classes,
            image_column="the image",
            patient_column="none",
            study_column="none",
            view_column="none",
            source="plain",
            blank="unknown",
        )
        assert table.ids == ids
        assert table.class_names == tuple(classes)
        truth = np.array([[CELLS[cell] for cell in row] for row in cells], dtype=np.float32)
        np.testing.assert_array_equal(table.targets, truth)
        assert all(in_plain_sight(note) == note for note in table.notes)
        write_folds(folder / "folds.csv", table, np.zeros(len(ids), dtype=int))
        with (folder / "folds.csv").open(encoding="utf-8", newline="") as file:
            assert [row["ImageID"] for row in csv.DictReader(file)] == ids

    return check


def predictions_are_read_back(folder: Path) -> Callable[[st.DataObject], None]:
    def check(data: st.DataObject) -> None:
        ids, classes = data.draw(IDS), data.draw(CLASSES)
        numbers = st.floats(0, 1).map(repr) | st.sampled_from(
            ["0", "1", "-0", "5e-1", "1e-400", ".5"]
        )
        cells = [[data.draw(numbers) for _ in classes] for _ in ids]
        rows = [
            ["ImageID", *classes],
            *([name, *row] for name, row in zip(ids, cells, strict=True)),
        ]
        if "ImageID" in classes:
            return
        path = written(folder / "predictions.csv", rows, csv.QUOTE_MINIMAL, "\n")
        read = read_predictions(path)
        assert (read.ids, read.class_names) == (ids, tuple(classes))
        truth = np.array([[float(cell) for cell in row] for row in cells])
        np.testing.assert_allclose(read.probabilities, truth, rtol=1e-15, atol=1e-300)

    return check


def any_text_is_a_table_or_a_sentence(folder: Path) -> Callable[[st.DataObject], None]:
    # what has a meaning in a CSV comes often
    pieces = TEXTS | st.sampled_from([*',\n"\r', '""', "\ufeff", "ImageID", "Mass", "1", "0", " "])
    texts = st.lists(pieces, max_size=40).map("".join)

    def check(data: st.DataObject) -> None:
        path, text = folder / "any.csv", data.draw(texts)
        path.write_bytes(text.encode())
        try:
            columns = read_columns(path)
        except UserError as error:
            sentence = str(error)
            assert str(path) in sentence
            assert in_plain_sight(sentence) == sentence
            return
        counts = {len(column.codes) for column in columns.values()}
        assert len(counts) == 1
        if not {*'"\t;|'}.isdisjoint(text):
            return
        # by another parser, which takes one row after the other
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if "".join(row).strip() or len(row) > 1]
        assert counts == {len(rows) - 1}
        if len(columns) < len(rows[0]):
            assert "" in columns  # several columns without a name are kept as one
            return
        assert [[cell.strip() for cell in row] for row in rows[1:]] == pd.DataFrame(
            {name: column.cells for name, column in columns.items()}
        ).to_numpy().tolist()

    return check


def run(check: Callable[[st.DataObject], None], soak: bool) -> None:
    (MANY if soak else FEW)(given(st.data())(check))()


def test_labels(tmp_path: Path, soak: bool, fault: Fault) -> None:
    fault("any names in a CSV", MANY.max_examples if soak else FEW.max_examples)
    run(labels_are_read_back(tmp_path), soak)


def test_predictions(tmp_path: Path, soak: bool, fault: Fault) -> None:
    fault("any names in a CSV", MANY.max_examples if soak else FEW.max_examples)
    run(predictions_are_read_back(tmp_path), soak)


def test_any_text(tmp_path: Path, soak: bool, fault: Fault) -> None:
    fault("hostile CSV", MANY.max_examples if soak else FEW.max_examples)
    run(any_text_is_a_table_or_a_sentence(tmp_path), soak)
