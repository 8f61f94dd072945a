"""Which columns of a table are labels, and their cells as 1, 0 and unknown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.data.columns import Column, is_known_non_label
from core.errors import UserError, in_plain_sight, nearest, some

LABEL_VALUES = {
    **dict.fromkeys(("1", "1.0"), 1.0),
    **dict.fromkeys(("0", "0.0"), 0.0),
    **dict.fromkeys(("-1", "-1.0"), -1.0),
    "": np.nan,
}
UNCERTAIN = {"ignore": np.nan, "zero": 0.0, "one": 1.0}
BLANK = {"unknown": np.nan, "zero": 0.0}
# A column with so large a share of label values among its filled cells is meant as a label.
MEANT_AS_LABEL = 0.8


def choose_labels(
    path: Path, columns: dict[str, Column], used: set[str], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The requested labels, checked, or all columns that hold label values only."""
    if labels is None:
        found = _detect_labels(path, columns, used)
        for name in found:
            check_printable(path, name)
        return found
    if not labels:
        raise UserError("--labels is empty: name at least one column, or leave it out.")
    for name in labels:
        if name not in columns:
            raise UserError(f"{path} has no label column '{name}'{nearest(name, columns)}.")
        if name in used:
            raise UserError(
                f"{path}: column '{name}' names the image, patient, study or view, so that it "
                "cannot be a label too. Take it out of --labels."
            )
        if list(labels).count(name) > 1:
            raise UserError(f"--labels names '{name}' more than once.")
        check_printable(path, name)
    return tuple(labels)


def check_printable(path: Path, label: str) -> None:
    """Raise UserError where a label of the table at `path` could not be printed on one line."""
    if in_plain_sight(label) != label:
        raise UserError(
            f"{path}: the label '{label}' has a line break or another control character in its "
            "name, so that no table could show it: rename it."
        )


def add_absent(
    path: Path, columns: dict[str, Column], labels: Sequence[str], listed: Sequence[str]
) -> tuple[dict[str, Column], list[str]]:
    """The columns with those of `labels` that no list of the table names, and sentences about them.

    The lists' labels are `listed`, and each is 0 where a list does not name it. One that differs in
    its case alone is meant. Without any label that is there, nothing is added.
    """
    there = {name.casefold(): name for name in listed}
    absent = [name for name in labels if name not in columns]
    if all(name.casefold() not in there for name in labels):
        return columns, []
    zeros = np.zeros(len(next(iter(columns.values())).codes), dtype=np.int8)
    added, notes = {}, []
    for name in absent:
        if name.casefold() in there:
            added[name] = columns[there[name.casefold()]]
            continue
        added[name] = Column(zeros, ["0"])
        notes.append(
            f"Warning: no list of {path} names '{name}', which counts as absent from every image"
            f"{nearest(name, listed)}."
        )
    renamed = {there[name.casefold()] for name in absent if name.casefold() in there} - {*labels}
    kept = {name: column for name, column in columns.items() if name not in renamed}
    return kept | added, notes


def _detect_labels(path: Path, columns: dict[str, Column], used: set[str]) -> tuple[str, ...]:
    found = []
    for name, column in columns.items():
        if name in used or is_known_non_label(name):
            continue
        filled = np.array([value != "" for value in column.values])
        valid = np.array([value in LABEL_VALUES for value in column.values])
        cells = column.counts
        if cells[filled & valid].sum() < MEANT_AS_LABEL * cells[filled].sum() or not filled.any():
            continue
        if not valid.all():
            wrong = column.values[int((~valid).argmax())]
            raise UserError(
                f"{_bad_cell(path, name, column, wrong)} If '{name}' is no label, name those that "
                "are with --labels."
            )
        found.append(name)
    if found:
        return tuple(found)
    joined = [name for name, column in columns.items() if any("|" in v for v in column.values)]
    hint = ""
    if joined:
        hint = (
            f" Column '{joined[0]}' lists several in a cell: split it up, or pass --source nih for "
            "a table such as NIH's."
        )
    rest = [name for name in columns if name not in used and not is_known_non_label(name)]
    for name in rest[:1]:
        strange = [value for value in columns[name].values if value not in LABEL_VALUES]
        if strange and not joined:
            hint = f" {_bad_cell(path, name, columns[name], strange[0])}"
    raise UserError(
        f"{path} has no label column: one column of 1 and 0 for each label is needed.{hint}"
    )


def _bad_cell(path: Path, name: str, column: Column, value: str) -> str:
    return (
        f"{column.place(path, value)}, column '{name}' holds '{value[:40]}'; a label is 1, 0, "
        "-1 (uncertain) or blank."
    )


def read_targets(
    path: Path, columns: dict[str, Column], names: Sequence[str], uncertain: str, blank: str | None
) -> tuple[np.ndarray, list[str]]:
    """Targets (N, C) float32 with NaN for unknown, and sentences about them."""
    for flag, choice, choices in (
        ("--uncertain", uncertain, UNCERTAIN),
        ("--blank", blank or "unknown", BLANK),
    ):
        if choice not in choices:
            raise UserError(f"{flag} {choice} is none of {', '.join(choices)}.")
    meaning = {1.0: 1.0, 0.0: 0.0, -1.0: UNCERTAIN[uncertain]}
    meaning_of_blank = BLANK[blank or "unknown"]
    rows = len(columns[names[0]].codes)
    targets = np.empty((rows, len(names)), dtype=np.float32)
    blanks = []
    for position, name in enumerate(names):
        column = columns[name]
        for value in column.values:
            if value not in LABEL_VALUES:
                raise UserError(_bad_cell(path, name, column, value))
        decoded = [
            meaning[LABEL_VALUES[value]] if value else meaning_of_blank for value in column.values
        ]
        targets[:, position] = np.array(decoded, dtype=np.float32)[column.codes]
        empty = column.counts[[not value for value in column.values]].sum() / rows
        if empty > 0.5:
            blanks.append(f"{name} ({empty:.0%})")
    if blanks and blank is None:
        raise UserError(
            f"{path}: more than half of the cells are blank in {some(blanks)}. Does a blank mean "
            "that the finding is absent (--blank zero) or that nobody knows (--blank unknown)?"
        )
    without = [name for name, n in zip(names, np.nansum(targets, axis=0), strict=True) if n == 0]
    notes = []
    if without:
        notes.append(
            f"Warning: no image of {path} is positive for {', '.join(without)}, so that nothing "
            "can be learnt or measured there."
        )
    return targets, notes
