"""A file is read as the text that it holds, or refused with the reason."""

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


def test_cells_stay_the_text_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b,c\n00012,NA,"x,y"\n1.90E+38,,1.0\n00012,nan,-1\n')
    assert cells(path) == {
        "a": ["00012", "1.90E+38", "00012"],
        "b": ["NA", "", "nan"],
        "c": ["x,y", "1.0", "-1"],
    }


def test_a_row_is_told_as_a_spreadsheet_counts_it(tmp_path: Path) -> None:
    column = read_columns(write(tmp_path, b"a\nx\ny\nx\ny\n"))["a"]
    assert column.row_of("y") == 3
    assert dict(zip(column.values, column.counts.tolist(), strict=True)) == {"x": 2, "y": 2}


def test_texts_that_differ_in_white_space_are_one(tmp_path: Path) -> None:
    column = read_columns(write(tmp_path, b"a\n y\nx\ny \n x\n"))["a"]
    assert column.values == ["y", "x"]
    assert column.codes.tolist() == [0, 1, 0, 1]
    assert column.row_of("x") == 3


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


def test_a_row_that_ends_early_is_found_among_quoted_cells(tmp_path: Path) -> None:
    whole = b'a,b,c\n"1,2",3,\n"4\n5",6,\n7,8,"9"\n\n'
    assert cells(write(tmp_path, whole))["a"] == ["1,2", "4\n5", "7"]
    # a quote in the middle of a cell quotes nothing
    odd = b'a,b,c\n5" tube,1,\n6" tube,3,4\n'
    assert cells(write(tmp_path, odd))["a"] == ['5" tube', '6" tube']
    with pytest.raises(UserError, match="line 3 has 2 cells where the header has 3"):
        read_columns(write(tmp_path, odd.replace(b"\n6", b"\nx,y\n6")))
    for short in (b'"1,2,3",4\n', b'"4\n5",\n', b"7,\n", b"\r7,", b"7,\r\n"):
        with pytest.raises(UserError, match="2 cells where the header has 3"):
            read_columns(write(tmp_path, whole + short))


def test_white_space_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    text = "\ufeff ImageID , Mass \r\n a.png , 1\r\n\r\nb.png,0 \r\n  \r\n"
    assert cells(write(tmp_path, text.encode())) == {
        "ImageID": ["a.png", "b.png"],
        "Mass": ["1", "0"],
    }


def test_a_compressed_csv_is_read(tmp_path: Path) -> None:
    data = gzip.compress(b"ImageID,Mass\na.png,\nb.png,1\n")
    assert cells(write(tmp_path, data, "t.csv.gz")) == {
        "ImageID": ["a.png", "b.png"],
        "Mass": ["", "1"],
    }


@pytest.mark.parametrize("mark", ["\t", ";", "|", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_other_separators_are_read_as_pandas_does(tmp_path: Path, mark: str, end: str) -> None:
    rows = [
        ["ImageID", "Note; |\tand, more", "Edema, pulmonary", "Mass"],
        ["a.png", "left; right", "1,0", ""],
        ["b.png", "|", "0", 'say "x"'],
        [" c.png ", "two\nlines", "1", "0,0"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=mark, lineterminator=end).writerows(rows)
    path = write(tmp_path, text.getvalue().encode())
    truth = pd.read_csv(path, sep=mark, dtype=str, keep_default_na=False)
    wanted = {name: [cell.strip() for cell in truth[name]] for name in truth}
    assert cells(path) == wanted
    assert list(wanted) == rows[0]
    assert cells(write(tmp_path, gzip.compress(path.read_bytes()), "t.tsv.gz")) == wanted


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (b"ImageID,Note;a;b\nx.png,1;2;3\n", ["ImageID", "Note;a;b"]),
        (b"ImageID\t,Mass\t\nx.png,1\n", ["ImageID", "Mass"]),
        (b"ImageID\nx;png\n", ["ImageID"]),
        (b",\n,\n", [""]),
        (b"ImageID\tEdema, pulmonary\tMass\na\t1\t0\n", ["ImageID", "Edema, pulmonary", "Mass"]),
        (b"ImageID;Mass\na;1,0\nb;0,0\n", ["ImageID", "Mass"]),
    ],
)
def test_the_separator_is_the_one_that_rows_share(
    tmp_path: Path, text: bytes, header: list[str]
) -> None:
    assert list(read_columns(write(tmp_path, text))) == header


@pytest.mark.parametrize("mark", [b"\t", b";"])
def test_ragged_rows_of_other_separators_are_refused(tmp_path: Path, mark: bytes) -> None:
    for row in (b"b.png,1\n", b"b.png,1,0,1\n"):
        text = b"ImageID,Mass,Edema\na.png,1,\n" + row
        with pytest.raises(UserError, match=r"is not a regular table.* line 3"):
            read_columns(write(tmp_path, text.replace(b",", mark)))


def test_a_missing_csv_is_named_with_the_way_to_a_phantom(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_columns(tmp_path / "no.csv")
    for part in (
        str(tmp_path / "no.csv"),
        "`python -m core.data.phantom data`",
        "`python methods/standard_head/train.py`",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"ImageID,Mass\n", "header and no rows"),
        ("ImageID,Ma\u00df\na.png,1\n".encode("latin-1"), "not UTF-8 text"),
        ("ImageID,Mass\na.png,1\n".encode("utf-16"), "not UTF-8 text"),
        (b"ImageID,Mass,Mass\na.png,1,0\n", "more than one column is named Mass"),
        (b"ImageID,Mass\na.png,1\nb.png,1,0\n", "Expected 2 fields in line 3, saw 3"),
        (b"ImageID,Mass\na.png,1,0\nb.png,1,0\n", "Expected 2 fields in line 2, saw 3"),
        (b"ImageID,Mass,Edema\na.png,1,0\nb.png,1\n", "line 3 has 2 cells where the header has 3"),
        (b'ImageID,Mass\n"a.png,1\nb.png,1\n', "not a regular table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
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
