"""Tables of several sources joined to one."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.data import LabelReading
from core.data.csv.columns import IMAGE_COLUMNS
from core.data.images.collection import Images
from core.data.sources.sheet import Sheet
from core.data.tables.label_table import LabelTable, table_of_sheet
from core.errors import UserError, plain

# What MIMIC-CXR-JPG and CXR-LT 2023 and 2024 call patients; only one of them writes p10000032.
MIMIC_PATIENTS = ("subject_id",)


@dataclass(frozen=True)
class Part:
    """One of the CSVs, and how it is to be read."""

    csv: Path
    folder: Path | None
    """None where only the labels are wanted"""
    name: str
    """What its images are called by, before their own names"""
    reading: LabelReading

    def read(self, sheet: Sheet, labels: Sequence[str] | None) -> LabelTable:
        """Its table, of what `read_sheet` made of the CSV."""
        return table_of_sheet(sheet, self.folder, labels, self.reading)


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
    changed = {label: name for label, name in names.items() if plain(label) != plain(name)}
    renamed = [f"{label} is {name}" for label, name in changed.items()]
    if renamed:
        notes.append(f"Labels of {csv} by the label map: {', '.join(renamed)}.")
    return replace(table, targets=targets, class_names=tuple(columns), notes=tuple(notes))


def of_same_people(sheets: Sequence[Sheet]) -> list[int]:
    """For each sheet the first one whose images and patients have the same names.

    A known source says what its images and patients are called. MIMIC-CXR-JPG and CXR-LT 2023 and
    2024 do it alike, as they are the same ones, and so do PadChest and CXR-LT 2026.
    """
    # MIMIC-CXR-JPG may be read by study
    called = [
        MIMIC_PATIENTS if sheet.patient == MIMIC_PATIENTS else sheet.image for sheet in sheets
    ]
    return [
        place if names == IMAGE_COLUMNS else called.index(names)
        for place, names in enumerate(called)
    ]


def without_shared_images(
    tables: Sequence[LabelTable],
    sheets: Sequence[Sheet],
    parts: Sequence[Part],
    homes: Sequence[int],
) -> list[LabelTable]:
    """The tables, an image of several only in the first of them; `homes` as `of_same_people` says.

    With --official_split train an official test image of one of them is in none. Raises UserError
    where nothing is left of a table.
    """
    kept = list(tables)
    for home in {home for home in homes if homes.count(home) > 1}:
        members = [place for place, other in enumerate(homes) if other == home]
        of_test: set[str] = set()
        for place in members:
            test = sheets[place].official_test
            if test is not None and parts[place].reading.official_split == "train":
                named = sheets[place].columns[tables[place].id_column].cells[test]
                of_test.update(_image_keys(named, sheets[place]))
        seen: set[str] = set()
        for place in members:
            keys = pd.Index(_image_keys(tables[place].ids, sheets[place]))
            told = "official test images of another CSV", "in a CSV before it"
            again = keys.isin(list(of_test)), keys.isin(list(seen))
            notes = [
                f"Warning: {int(wrong.sum()):,} of {len(keys):,} images of {parts[place].csv} are "
                f"left out, as they are {why}."
                for wrong, why in zip(again, told, strict=True)
                if wrong.any()
            ]
            if notes:
                left = tables[place].take(~(again[0] | again[1]))
                kept[place] = replace(left, notes=(*left.notes, *notes))
            if not len(kept[place]):
                raise UserError(
                    f"all images of {parts[place].csv} are in another CSV of the same images or in "
                    "its official test: leave this CSV out"
                )
            seen.update(keys)
    return kept


def _image_keys(names: Iterable[str], sheet: Sheet) -> list[str]:
    """Names of one source's images without their folders, ending and case."""
    # CheXpert's patient00001/study1/view1_frontal
    count = 3 if sheet.image == ("Path",) else 1
    stems = (os.path.splitext(name.replace("\\", "/"))[0].casefold() for name in names)
    parts = (stem.split("/") for stem in stems)
    return ["/".join(one[-count:]) for one in parts]


def shared_patients(
    tables: Sequence[LabelTable], sheets: Sequence[Sheet], parts: Sequence[Part]
) -> list[str]:
    """A warning for each two CSVs in which patients have the same names and may be the same.

    Those of two known sources are other people, or are of `of_same_people`.
    """
    warnings = []
    for one, other in combinations(range(len(tables)), 2):
        known = [sheets[place].image != IMAGE_COLUMNS for place in (one, other)]
        first, second = tables[one].patients, tables[other].patients
        if all(known) or first is None or second is None:
            continue
        if count := len(np.intersect1d(pd.unique(first), pd.unique(second))):
            names = "patient name is" if count == 1 else "patient names are"
            warnings.append(
                f"Warning: {count:,} {names} in both {parts[one].csv} and {parts[other].csv} and "
                f"count{'s' if count == 1 else ''} as different people: put them in one CSV if "
                "they are the same."
            )
    return warnings


def with_source(table: LabelTable, sheet: Sheet, name: str, people: str) -> LabelTable:
    """The table with "name/" before its images, and "people/" before patients and studies."""
    letters = ("p", "s") if sheet.patient == MIMIC_PATIENTS else ("", "")
    return replace(
        table,
        ids=[f"{name}/{one}" for one in table.ids],
        patients=_prefixed(people, table.patients, letters[0]),
        studies=_prefixed(people, table.studies, letters[1]),
    )


def _prefixed(name: str, values: np.ndarray | None, letter: str) -> np.ndarray | None:
    """The values with "name/" before them, in the place of this letter."""
    if values is None:
        return None
    # a text for each distinct value, and not for each row
    codes, distinct = pd.factorize(values)
    texts = [f"{name}/{value.removeprefix(letter)}" for value in distinct]
    return np.array(texts, dtype=object)[codes]


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
        images=Images.joined([table.images for table in tables]),
        patients=patients,
        studies=_join_studies(tables),
        views=_join_views(tables),
        targets=targets,
        class_names=tuple(class_names),
        notes=(*(note for table in tables for note in table.notes), *notes),
        sources=np.repeat(np.arange(len(tables)), sizes),
        source_names=tuple(part.name for part in parts),
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
