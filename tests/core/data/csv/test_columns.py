"""Reading of CSV text, and errors with their reason."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.csv.columns import read_columns, take_rows
from core.errors import UserError


def write(folder: Path, data: bytes, name: str = "train.csv") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def cells(path: Path) -> dict[str, list[str]]:
    return {name: column.cells.tolist() for name, column in read_columns(path).items()}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            'a,b,c\n00012,NA,"x,y"\n1.90E+38,,1.0\n00012,nan,-1\n',
            {
                "a": ["00012", "1.90E+38", "00012"],
                "b": ["NA", "", "nan"],
                "c": ["x,y", "1.0", "-1"],
            },
        ),
        (
            "\ufeff ImageID , Mass \r\n a.png , 1\r\n\r\nb.png,0 \r\n  \r\n",
            {"ImageID": ["a.png", "b.png"], "Mass": ["1", "0"]},
        ),
        (
            'a,b,c\n"1,2",3,\n"4\n5",6,\n7,8,"9"\n\n',
            {"a": ["1,2", "4\n5", "7"], "b": ["3", "6", "8"], "c": ["", "", "9"]},
        ),
        # a quote in the middle of a cell quotes nothing
        (
            'a,b,c\n5" tube,1,\n6" tube,3,4\n',
            {"a": ['5" tube', '6" tube'], "b": ["1", "3"], "c": ["", "4"]},
        ),
        # the separator is the one that rows share
        ("ImageID,Note;a;b\nx.png,1;2;3\n", {"ImageID": ["x.png"], "Note;a;b": ["1;2;3"]}),
        ("ImageID\t,Mass\t\nx.png,1\n", {"ImageID": ["x.png"], "Mass": ["1"]}),
        ("ImageID\nx;png\n", {"ImageID": ["x;png"]}),
        (",\n,\n", {"": [""]}),
    ],
)
def test_cells_stay_the_text_they_are(
    tmp_path: Path, text: str, wanted: dict[str, list[str]]
) -> None:
    assert cells(write(tmp_path, text.encode())) == wanted
    assert cells(write(tmp_path, gzip.compress(text.encode()), "t.csv.gz")) == wanted


@pytest.mark.parametrize("mark", ["\t", ";", "|", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_other_separators_are_read_as_pandas_does(tmp_path: Path, mark: str, end: str) -> None:
    rows = [
        ["ImageID", "Note; |\tand, more", "Edema, pulmonary", "Mass"],
        ["a.png", "left; right", "1,0", ""],
        [" c.png ", "two\nlines", "1", 'say "x"'],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=mark, lineterminator=end).writerows(rows)
    path = write(tmp_path, text.getvalue().encode())
    truth = pd.read_csv(path, sep=mark, dtype=str, keep_default_na=False)
    wanted = {name: [cell.strip() for cell in truth[name]] for name in truth}
    assert cells(path) == wanted
    assert list(wanted) == rows[0]


def test_rows_are_taken_with_their_place_in_the_file(tmp_path: Path) -> None:
    columns = read_columns(write(tmp_path, b"a,b\nx,1\ny,2\nx,3\nz,4\n"))
    some = take_rows(columns, np.array([False, True, True, True]))
    assert [column.cells.tolist() for column in some.values()] == [["y", "x", "z"], ["2", "3", "4"]]
    assert some["b"].values == ["2", "3", "4"]
    assert some["a"].row_of("x") == 4
    again = take_rows(some, np.array([2, 0]))
    assert again["a"].cells.tolist() == ["z", "y"]
    assert [again["a"].row_of("z"), again["b"].row_of("2")] == [5, 3]
    assert sorted(again["a"].values) == ["y", "z"]


@pytest.mark.parametrize("row", ['"1,2,3",4\n', '"4\n5",\n', "7,\n", "\r7,", "7,\r\n"])
def test_a_row_that_ends_early_is_found_among_quoted_cells(tmp_path: Path, row: str) -> None:
    for whole in ('a,b,c\n"1,2",3,\n"4\n5",6,\n7,8,"9"\n\n', 'a,b,c\n5" tube,1,\n6" tube,3,4\n'):
        with pytest.raises(UserError, match="has 2 cells and the header 3"):
            read_columns(write(tmp_path, (whole + row).encode()))


SHORT, LONG = "line 3 has 2 cells and the header 3", "Expected 3 fields in line 3, saw 4"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"ImageID,Mass\n", "header and no rows"),
        ("ImageID,Ma\u00df\na.png,1\n".encode("latin-1"), "not UTF-8 text"),
        ("ImageID,Mass\na.png,1\n".encode("utf-16"), "not UTF-8 text"),
        (b"ImageID,Mass,Mass\na.png,1,0\n", "more than one column is named Mass"),
        (b"ImageID,Mass\na.png,1,0\nb.png,1,0\n", "Expected 2 fields in line 2, saw 3"),
        (b'ImageID,Mass\n"a.png,1\nb.png,1\n', "not a regular table"),
        *(
            (
                b"ImageID,Mass,Edema\na.png,1,\n".replace(b",", mark) + row.replace(b",", mark),
                expected,
            )
            for mark in (b",", b"\t", b";")
            for row, expected in ((b"b.png,1\n", SHORT), (b"b.png,1,0,1\n", LONG))
        ),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        read_columns(write(tmp_path, data))
    assert reason in str(refused.value)
    assert "train.csv" in str(refused.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(bytes(range(40, 90)) * 50)
    for data in (b"no gzip", whole[: len(whole) // 2]):
        with pytest.raises(UserError, match=r"train\.csv\.gz cannot be read"):
            read_columns(write(tmp_path, data, "train.csv.gz"))
    with pytest.raises(UserError, match="cannot be read"):
        read_columns(tmp_path)
    # with the way to a phantom
    way = r"no file .*no\.csv.*`python -m core.data.phantom data` .*methods/standard_head/train.py`"
    with pytest.raises(UserError, match=way):
        read_columns(tmp_path / "no.csv")
