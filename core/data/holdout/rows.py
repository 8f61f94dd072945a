"""Copy of CSV rows into two files, with their original text."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from core.data.csv.text import open_text
from core.errors import UserError


def write_rows(
    path: Path, column: str, is_held_out: Mapping[str, bool], train: Path, holdout: Path
) -> int:
    """Write the rows of the CSV `path` to `train` or `holdout`, by the image in `column`.

    Returns the number of rows of other images, which are in neither. Raises UserError if an image
    of `is_held_out` has no row.
    """
    left_out, found = 0, set[str]()
    with (
        open_text(path) as (text, checked),
        train.open("w", encoding="utf-8", newline="") as of_train,
        holdout.open("w", encoding="utf-8", newline="") as of_holdout,
    ):
        rows = _rows(path, text, checked.separator)
        names, header = next(rows)
        for file in (of_train, of_holdout):
            file.write(header)
        place = [name.strip() for name in names].index(column)
        for cells, row in rows:
            image = cells[place].strip()
            if image not in is_held_out:
                left_out += 1
                continue
            found.add(image)
            (of_holdout if is_held_out[image] else of_train).write(row)
    if len(found) < len(is_held_out):
        raise UserError(f"{path} was changed while it was read: rerun the command")
    return left_out


def _rows(path: Path, text: TextIO, separator: str) -> Iterator[tuple[list[str], str]]:
    """Cells and text (with line end) of each row that is not blank."""
    lines: list[str] = []

    def record_lines() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(record_lines(), delimiter=separator)
    try:
        for cells in reader:
            row = "".join(lines)
            lines.clear()
            if row.strip():
                yield cells, row if row.endswith(("\n", "\r")) else f"{row}\n"
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
