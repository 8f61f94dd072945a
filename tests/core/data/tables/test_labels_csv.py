"""labels.csv of a run folder, written and read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.data.tables import LabelTable, read_table
from core.data.tables.labels_csv import read_labels_csv, write_labels
from core.data.tables.load import gather
from core.errors import UserError
from tests.helpers.data.two_sources import two


def assert_same(read: LabelTable, table: LabelTable) -> None:
    assert (read.ids, read.class_names) == (table.ids, table.class_names)
    assert read.source_names == table.source_names
    np.testing.assert_array_equal(read.targets, table.targets)
    for name in ("patients", "studies", "views", "sources"):
        ours, theirs = getattr(read, name), getattr(table, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.tolist() == theirs.tolist()


def test_labels_are_read_back_unchanged(tmp_path: Path) -> None:
    table = gather(two(tmp_path))
    write_labels(tmp_path / "labels.csv", table)
    assert_same(read_labels_csv(tmp_path), table)
    # names of labels may be those of other columns elsewhere
    ids = [f"0{n},{n}" for n in range(len(table))]
    names = ("Patient ID", '"quoted", and a comma', *table.class_names[2:])
    odd = replace(table, ids=ids, patients=None, sources=None, source_names=(), class_names=names)
    write_labels(tmp_path / "labels.csv", odd)
    assert_same(read_labels_csv(tmp_path), odd)
    # another command reads it as any table
    write_labels(tmp_path / "labels.csv", table)
    again = read_table(tmp_path / "labels.csv", None, blank="unknown")
    assert set(again.class_names) == set(table.class_names)
    assert again.views is not None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "has no labels.csv: give a CSV of its labels with --labels"),
        ("ImageID,Mass\na,2\n", r"row 2 .* column 'Mass' holds '2'; a label is 1, 0"),
        ("Mass,ImageID\n1,a\n", "was edited"),
        ("ImageID,PatientID\na,b\n", "was edited"),
    ],
)
def test_an_invalid_labels_csv_is_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_labels_csv(tmp_path)
