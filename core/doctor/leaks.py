"""What is in two of the CSVs, or twice in one: by name, by patient, and byte for byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.data.csv.columns import PATIENT_COLUMNS, find_column, read_columns
from core.data.splits.duplicates import file_sizes, first_copies, told_copies
from core.data.splits.folds import check_disjoint
from core.data.tables.label_table import LabelTable
from core.doctor.findings import Findings
from core.errors import counted, some

TEST = "the test"
_LEARNT = "take them out of {}, or what they score tells nothing of new patients"


def check_leaks(find: Findings, train: LabelTable, val: LabelTable) -> None:
    """Images and patients of --val_csv that are in --train_csv. Raises UserError for these."""
    # where images are missing their names are still compared
    check_disjoint(*(replace(one, paths=one.paths or one.ids) for one in (train, val)))
    shared = "no image" if train.patients is None else "no image and no patient"
    find.good(f"{shared} of --val_csv is in --train_csv")


def check_test_leaks(
    find: Findings, flag: str, table: LabelTable, test: LabelTable, people: set[str]
) -> None:
    """Images and patients of `test`, its `people`, that are in `table`, the one of `flag`.

    Images are compared by their file: two folders may each have a 1.png.
    """
    where = set(map(os.path.realpath, table.paths))
    pairs = zip(test.ids, test.paths, strict=True)
    images = [name for name, path in pairs if os.path.realpath(path) in where]
    # of several sources a patient has the source's name before its own
    named = bool(people) and table.patients is not None and table.sources is None
    shared = sorted(people & set(table.patients)) if named and table.patients is not None else []
    mend = _LEARNT.format(flag)
    if images:
        find.bad(
            f"{counted(len(images), 'image')} of the test can be found in {flag}: {some(images)}",
            mend,
        )
    if shared:
        find.bad(
            f"{counted(len(shared), 'patient')} of --test_csv can be found in {flag}: "
            f"{some(shared)}",
            mend,
        )
    if images or shared:
        return
    compared = [what for what, was in (("image", table.paths), ("patient", named)) if was]
    if not compared:
        find.unseen(f"whether the test is in {flag}: every image needs a file first")
        return
    why = "" if named else " (patients are not compared: a file names none)"
    if people and table.sources is not None:
        why = " (patients are not compared: those of several sources have other names)"
    nothing = " and ".join(f"no {what}" for what in compared)
    find.good(f"{nothing} of the test is in {flag}{why}")


def patients_of(csv: Path | None, request: str) -> set[str]:
    """The patients that a CSV names; none where it has no such column, or "none" is asked for."""
    if csv is None or request.lower() == "none":
        return set()
    columns = read_columns(csv)
    wanted = request if request in columns else None
    name = find_column(csv, columns, wanted, PATIENT_COLUMNS, "--patient_column")
    return set() if name is None else set(columns[name].values)


def check_copies(find: Findings, parts: Sequence[tuple[str, LabelTable]]) -> np.ndarray | None:
    """Of each training image the first that equals it; None where not every one has a file.

    `parts` are the flag and the table of --train_csv, then perhaps of --val_csv and the test.
    """
    train = parts[0][1]
    if not train.paths:
        find.unseen("equal images under two names: every image needs a file first")
        return None
    parts = [(flag, table) for flag, table in parts if table.paths]
    paths = [path for _, table in parts for path in table.paths]
    packs = tuple(dict.fromkeys(pack for _, table in parts for pack in table.packs))
    first = first_copies(paths, packs, file_sizes(paths))
    start, one_patients, clean = 0, 0, True
    for number, (flag, table) in enumerate(parts):
        stop = start + len(table)
        copies = np.flatnonzero(first[:stop] < np.arange(stop))
        copies = copies[copies >= start]
        within = copies[first[copies] >= start]
        clean &= not _tell_elsewhere(find, parts, number, first, copies[first[copies] < start])
        strangers = within
        if table.patients is not None:
            whose = table.patients[within - start] != table.patients[first[within] - start]
            strangers = within[whose]
        one_patients += len(within) - len(strangers)
        if len(strangers):
            clean = False
            _tell_twice(find, flag, table, first[start:stop] - start, strangers - start)
        start = stop
    if clean:
        same = f", but for {one_patients:,} of one patient's own" if one_patients else ""
        find.good(f"no image is there under two names{same} (compared byte by byte)")
    return first[: len(train)]


def _tell_elsewhere(
    find: Findings,
    parts: Sequence[tuple[str, LabelTable]],
    number: int,
    first: np.ndarray,
    copies: np.ndarray,
) -> bool:
    """Whether some of `copies`, of the table `number`, equal another file's image before it."""
    ids = [name for _, table in parts for name in table.ids]
    paths = [path for _, table in parts for path in table.paths]
    ends = np.cumsum([len(table) for _, table in parts])
    # one file in both was told before
    before = paths[: int(ends[number]) - len(parts[number][1])] if len(copies) else []
    known = set(map(os.path.realpath, before))
    hidden = [p for p in copies.tolist() if os.path.realpath(paths[p]) not in known]
    homes = np.searchsorted(ends, first[hidden], side="right")
    for home in np.unique(homes).tolist():
        pairs = [
            f"{ids[p]} = {ids[first[p]]}"
            for p, where in zip(hidden, homes, strict=True)
            if where == home
        ]
        mine = parts[number][0]
        find.bad(
            f"{counted(len(pairs), 'image')} of {mine} can be found in {parts[home][0]} under "
            f"another name: {some(pairs)}",
            _LEARNT.format(parts[home][0]) if mine == TEST else "take them out of one of the two",
        )
    return bool(hidden)


def _tell_twice(
    find: Findings, flag: str, table: LabelTable, first: np.ndarray, copies: np.ndarray
) -> None:
    """Tell of the images `copies` of a table that equal another patient's of the same table."""
    if flag == "--train_csv":
        told = told_copies(table.ids, table.patients, first)
        find.doubt(told.removeprefix("Warning: "))
        return
    pairs = [f"{table.ids[p]} = {table.ids[first[p]]}" for p in copies.tolist()]
    find.doubt(
        f"{counted(len(pairs), 'image')} of {flag} can be found there under two names: "
        f"{some(pairs)}",
        "take one of each pair out, or both count",
    )
