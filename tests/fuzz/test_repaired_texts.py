"""Regression tests for defects of text reading that the fuzzer found."""

import json
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from core.data.csv import columns as columns_module
from core.data.csv import text as table_text
from core.data.csv.columns import find_column, read_columns
from core.data.tables import read_table
from core.data.tables.label_map import read_label_map
from core.errors import UserError, suggest_name
from core.io.untrusted_files import read_json
from core.runs.folder import RunFolder
from core.runs.log import truncate_log
from core.runs.prediction_files import read_predictions
from core.runtime.environment import describe_changes, describe_file_changes
from core.training.finish import _read_history
from ensemble.predict.ensemble_json import read_recipe


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


WIDE = f"ImageID,{','.join(map(str, range(100_000)))}\na{',1' * 100_000}\n"
STEERS = "ImageID,\x1b[2JMass\na,1\nb,0\n"
CHAIN = "".join(f"a{row},a{row + 1}\n" for row in range(9000))
LONG = "".join(f"a{row},Mass\n" for row in range(10_001))
REFUSED: list[tuple[Callable[[Path], object], str, str]] = [
    (read_columns, WIDE, "100,001 columns; the maximum is 10,000"),
    (read_columns, "ImageID,Mass\na\0,1\n", "it holds NUL bytes"),
    (partial(read_table, image_dir=None), STEERS, r"label '\\x1b\[2JMass' has a line break"),
    (partial(read_table, image_dir=None), 'ImageID,M\n"a\rb",1\nb,0\n', "row 2 .* carriage return"),
    (read_predictions, STEERS, "has a line break"),
    *(
        (read_predictions, f"ImageID,M\na,{cell}\n", "not a probability")
        for cell in ("nan", "1.5", -1)
    ),
    (read_label_map, "label,means\nMass,\x1b[2JMass\n", "has a line break"),
    (read_label_map, f"label,means\n{CHAIN}", "needs more than 20 rows"),
    (read_label_map, f"label,means\n{LONG}", "10,001 rows; a label map has at most 10,000"),
]


@pytest.mark.parametrize(("read", "text", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_a_text_is_refused_at_once(
    tmp_path: Path, read: Callable[[Path], object], text: str, sentence: str
) -> None:
    path = write(tmp_path / "t.csv", text)
    began = time.monotonic()
    with pytest.raises(UserError, match=sentence):
        read(path)
    assert time.monotonic() - began < 5


def test_limits_are_raised_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv", "ImageID,Mass\na,1\nb,0\n")
    for module, limit, sentence in (
        (table_text, "LONGEST_HEADER", "no header in its first 3 characters"),
        (columns_module, "MOST_TEXTS", "more than 3 different texts"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 3)
            with pytest.raises(UserError, match=sentence):
                read_columns(path)
    for variable, limit in (("CXR_MAX_CSV_BYTES", "LARGEST_TEXT"), ("CXR_MAX_CELLS", "MOST_CELLS")):
        monkeypatch.setattr(table_text, limit, 5)
        with pytest.raises(UserError, match=f"has more than .*raise .*{variable}"):
            read_columns(path)
        monkeypatch.setenv(variable, "1000")
    assert len(read_columns(path)) == 2
    monkeypatch.setenv(variable, "many")
    with pytest.raises(UserError, match="CXR_MAX_CELLS is 'many': set it to a whole number"):
        read_columns(path)


def test_a_table_that_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space at the ends, quotes over lines and short rows, where two pieces meet too."""
    path = write(tmp_path / "t.csv", 'i,m\na, 1\nb,0\n"c\nd",1 \nb,0\n\n a,\n')
    monkeypatch.setattr(columns_module, "CELLS_AT_ONCE", 4)
    read = read_columns(path)
    assert read["i"].cells.tolist() == ["a", "b", "c\nd", "b", "a"]
    assert read["m"].cells.tolist() == ["1", "0", "1", "0", ""]
    assert read["i"].values == ["a", "b", "c\nd"]
    for short in ("e\n", "e,1,\n"):
        with pytest.raises(UserError, match="is not a regular table"):
            read_columns(write(tmp_path / "s.csv", path.read_bytes() + short.encode()))


@pytest.mark.parametrize("name", ["pipe", "zeros"])
def test_endless_files_are_not_read(tmp_path: Path, name: str) -> None:
    """Reading a pipe waited for ever."""
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    cut = partial(truncate_log, fold=1, epochs=1)
    for read in (read_columns, read_recipe, _read_history, read_json, cut, read_predictions):
        with pytest.raises(ValueError, match="a pipe or a device"):
            read(path)


def test_columns_that_differ_in_case_only(tmp_path: Path) -> None:
    """The last of them was taken without a word."""
    path, known = tmp_path / "t.csv", ("PatientID", "subject")
    assert find_column(path, ["patient_id", "PatientID"], "", known, "--x") == "PatientID"
    with pytest.raises(UserError, match=r"has the columns patient_id and PATIENTID.*with --x"):
        find_column(path, ["patient_id", "PATIENTID"], "", known, "--x")


def test_the_note_on_other_columns_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'ImageID,Mass,"no\n\x1b[2Jte"\na,1,x\nb,0,y\n')
    notes = read_table(path, None).notes
    assert any("no\\n\\x1b[2Jte" in note for note in notes)
    assert not any("\x1b" in note or "\n" in note for note in notes)


def test_names_like_formulas_are_reported_and_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "ImageID,=1+1\n=cmd|' /C calc'!A0,1\nb,0\n")
    table = read_table(path, None)
    assert table.ids == ["=cmd|' /C calc'!A0", "b"]
    assert table.class_names == ("=1+1",)
    assert any("2 image(s) or label(s)" in note and "formulas" in note for note in table.notes)


def test_the_nearest_of_endless_names_is_not_looked_for() -> None:
    chance = random.Random(0)
    letters = [chr(0x4E00 + chance.randrange(3000)) for _ in range(60_000)]
    name, other = "".join(letters), "".join(reversed(letters))
    began = time.monotonic()
    suggest_name(name, [other])
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("epoch", ["\u00b2", "9" * 5000])
def test_epochs_that_are_not_numbers(tmp_path: Path, epoch: str) -> None:
    text = f"fold,epoch,mAP\n1,{epoch},0\n1,1,0\n1,3,0\n"
    path = write(tmp_path / "metrics.csv", text)
    truncate_log(path, 1, 2)
    assert path.read_text() == text.removesuffix("1,3,0\n")


def test_a_folder_of_a_billion_folds_is_not_deleted(tmp_path: Path) -> None:
    write(tmp_path / "config.json", json.dumps({"out_dir": "", "model": "m", "folds": 10**9}))
    write(tmp_path / "env.json", json.dumps({"data": ""}))
    run = RunFolder(tmp_path, "m", "identity")
    with pytest.raises(UserError, match="was changed"):
        run.open(
            {"seed": 0},
            {"data": "", "parts": {}, "files": "", "labels": [], "starting_weights": None},
            overwrite=True,
        )
    run.release()


def test_an_environment_file_of_another_program() -> None:
    start = {"files": ["a"], "versions": {"torch\x1b[2J": "2\n" + "0" * 10**6}}
    now = {"files": "b", "versions": {"torch\x1b[2J": "3"}}
    assert describe_file_changes([start, now]) == ""
    message = describe_changes([start, now])
    assert "torch\\x1b[2J 2\\n000" in message
    assert len(message) < 400
