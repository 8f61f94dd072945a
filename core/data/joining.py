"""Tables of several sources joined to one."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.table import LabelTable
from core.errors import UserError


@dataclass(frozen=True)
class Part:
    """One of the CSVs, and how it is to be read."""

    csv: Path
    folder: Path | None
    """None where only the labels are wanted"""
    source: str | None
    name: str
    """What its images are called by, before their own names"""


def rename_labels(table: LabelTable, names: Mapping[str, str], csv: Path) -> LabelTable:
    """The table of `csv` with its labels called by `names`.

    Where several columns mean one label it is 1 if any of them is, 0 if all are, else unknown.
    """
    columns = defaultdict(list)
    for position, label in enumerate(table.class_names):
        columns[names[label]].append(position)
    targets = np.empty((len(table), len(columns)), dtype=np.float32)
    notes = list(table.notes)
    for place, (name, members) in enumerate(columns.items()):
        targets[:, place] = table.targets[:, members[0]]
        if len(members) > 1:
            several = table.targets[:, members]
            unless_one = np.where((several == 0).all(axis=1), 0, np.nan)
            targets[:, place] = np.where((several == 1).any(axis=1), 1, unless_one)
            alike = " and ".join(table.class_names[member] for member in members)
            notes.append(f"Columns {alike} of {csv} are one label, {name}: 1 where any of them is.")
    renamed = [f"{label} is {name}" for label, name in names.items() if label != name]
    if renamed:
        notes.append(f"Labels of {csv} by the label map: {', '.join(renamed)}.")
    return replace(table, targets=targets, class_names=tuple(columns), notes=tuple(notes))


def with_source(table: LabelTable, name: str) -> LabelTable:
    """The table with "name/" before its images, patients and studies."""
    return replace(
        table,
        ids=[f"{name}/{one}" for one in table.ids],
        patients=_prefixed(name, table.patients),
        studies=_prefixed(name, table.studies),
    )


def _prefixed(name: str, values: np.ndarray | None) -> np.ndarray | None:
    if values is None:
        return None
    # a text for each distinct value, and not for each row
    codes, distinct = pd.factorize(values)
    return np.array([f"{name}/{value}" for value in distinct], dtype=object)[codes]


def join_tables(
    tables: Sequence[LabelTable], parts: Sequence[Part], class_names: Sequence[str]
) -> LabelTable:
    """One table of the classes `class_names`, NaN where a source has no such label.

    Of one table the same with its classes in that order. Raises UserError for an image file that
    is in two of them.
    """
    if len(tables) == 1:
        order = [tables[0].class_names.index(name) for name in class_names]
        targets = tables[0].targets[:, order]
        return replace(tables[0], targets=targets, class_names=tuple(class_names))
    _refuse_shared_files(tables, parts)
    sizes = [len(table) for table in tables]
    targets = np.full((sum(sizes), len(class_names)), np.nan, dtype=np.float32)
    place = {name: position for position, name in enumerate(class_names)}
    for table, end in zip(tables, np.cumsum(sizes), strict=True):
        targets[end - len(table) : end, [place[name] for name in table.class_names]] = table.targets
    patients, notes = _join_patients(tables, parts)
    return LabelTable(
        ids=[name for table in tables for name in table.ids],
        paths=[path for table in tables for path in table.paths],
        patients=patients,
        studies=_join_studies(tables),
        views=_join_views(tables),
        targets=targets,
        class_names=tuple(class_names),
        notes=(*(note for table in tables for note in table.notes), *notes),
        sources=np.repeat(np.arange(len(tables)), sizes),
        source_names=tuple(part.name for part in parts),
        packs=tuple(dict.fromkeys(pack for table in tables for pack in table.packs)),
    )


def _join_patients(
    tables: Sequence[LabelTable], parts: Sequence[Part]
) -> tuple[np.ndarray | None, list[str]]:
    """The patients of all; an image of a source without any is a patient of its own."""
    if all(table.patients is None for table in tables):
        return None, []
    people, notes = [], []
    for table, part in zip(tables, parts, strict=True):
        if table.patients is None:
            people.append(np.array(table.ids, dtype=object))
            notes.append(
                f"Warning: each image of {part.csv} counts as a patient of its own, as it names "
                "none."
            )
        else:
            people.append(table.patients)
    return np.concatenate(people), notes


def _join_studies(tables: Sequence[LabelTable]) -> np.ndarray | None:
    """The studies of all; None where a source names none, as they could not be counted."""
    known = [table.studies for table in tables if table.studies is not None]
    return np.concatenate(known) if len(known) == len(tables) else None


def _join_views(tables: Sequence[LabelTable]) -> np.ndarray | None:
    """The views of all, blank where a source names none."""
    if all(table.views is None for table in tables):
        return None
    return np.concatenate(
        [
            np.full(len(table), "", dtype=object) if table.views is None else table.views
            for table in tables
        ]
    )


def _refuse_shared_files(tables: Sequence[LabelTable], parts: Sequence[Part]) -> None:
    """Refuse an image file of two CSVs, however their folders are written."""
    given = [os.path.join(part.folder, "") for part in parts if part.folder is not None]
    real = [os.path.join(os.path.realpath(folder), "") for folder in given]
    if not any(one.startswith(other) for one, other in permutations(real, 2)):
        return
    files = pd.Series(
        [
            root + path.removeprefix(folder)
            for table, folder, root in zip(tables, given, real, strict=True)
            for path in table.paths
        ]
    )
    again = np.flatnonzero(files.duplicated())
    if len(again):
        names = [name for table in tables for name in table.ids]
        first = int((files == files[again[0]]).to_numpy().argmax())
        raise UserError(
            f"{len(again):,} image file(s) are in more than one CSV: '{names[first]}' and "
            f"'{names[again[0]]}' are both {files[again[0]]}. Keep each in one of them."
        )
