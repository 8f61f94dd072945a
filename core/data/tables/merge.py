"""Tables of several sources joined to one."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.data import LabelReading
from core.data.csv.columns import IMAGE_COLUMNS
from core.data.images.collection import Images
from core.data.sources.source_table import SourceTable
from core.data.tables.label_table import LabelTable, build_label_table
from core.errors import UserError, list_first, normalize_name

# What MIMIC-CXR-JPG and CXR-LT 2023 and 2024 call patients; only one of them writes p10000032.
MIMIC_PATIENTS = ("subject_id",)


@dataclass(frozen=True)
class Part:
    """One of the CSVs, and how it is to be read."""

    sheet: SourceTable
    folder: Path | None
    """None where only the labels are wanted"""
    name: str
    """What its images are called by, before their own names"""
    reading: LabelReading

    @property
    def csv(self) -> Path:
        return self.sheet.path

    def read(self, labels: Sequence[str] | None) -> LabelTable:
        """Its table of these labels, or of those that are found."""
        return build_label_table(self.sheet, self.folder, labels, self.reading)


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
        several = table.targets[:, members]
        unless_one = np.where((several == 0).all(axis=1), 0, np.nan)
        targets[:, place] = np.where((several == 1).any(axis=1), 1, unless_one)
        if len(members) > 1:
            alike = " and ".join(table.class_names[member] for member in members)
            notes.append(f"Columns {alike} of {csv} are one label, {name}: 1 where any of them is.")
    renamed = [
        f"{one} is {name}"
        for one, name in names.items()
        if normalize_name(one) != normalize_name(name)
    ]
    if renamed:
        notes.append(f"Labels of {csv} by the label map: {', '.join(renamed)}.")
    return replace(table, targets=targets, class_names=tuple(columns), notes=tuple(notes))


def find_same_people(parts: Sequence[Part]) -> list[int]:
    """For each CSV the first one whose images and patients have the same names.

    MIMIC-CXR-JPG and CXR-LT 2023 and 2024 are of the same ones, as PadChest and CXR-LT 2026 are.
    """
    # MIMIC-CXR-JPG may be read by study
    sheets = [part.sheet for part in parts]
    called = [s.patient if s.patient == MIMIC_PATIENTS else s.image for s in sheets]
    return [p if names == IMAGE_COLUMNS else called.index(names) for p, names in enumerate(called)]


def without_shared_images(
    tables: Sequence[LabelTable], parts: Sequence[Part], homes: Sequence[int]
) -> list[LabelTable]:
    """Tables without images of an earlier one; `homes` as `find_same_people` returns it.

    With --official_split train an official test image of one of them is in none. Raises UserError
    where nothing is left of a table.
    """
    kept: list[LabelTable] = []
    tests, seen = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
    for table, part, home in zip(tables, parts, homes, strict=True):
        sheet = part.sheet
        if sheet.official_test is not None and part.reading.official_split == "train":
            names = sheet.columns[table.id_column].cells
            tests[home].update(_image_keys(names[sheet.official_test], sheet))
    for table, part, home in zip(tables, parts, homes, strict=True):
        if homes.count(home) > 1:
            keys = pd.Index(_image_keys(table.ids, part.sheet))
            is_test, is_seen = keys.isin(list(tests[home])), keys.isin(list(seen[home]))
            seen[home].update(keys)
            notes = tuple(
                f"Warning: {int(wrong.sum()):,} of {len(keys):,} images of {part.csv} are left "
                f"out, as they are {why}."
                for wrong, why in (
                    (is_test, "official test images of another CSV"),
                    (is_seen, "in a CSV before it"),
                )
                if wrong.any()
            )
            table = table.take(~(is_test | is_seen))
            table = replace(table, notes=table.notes + notes)
        if not len(table):
            raise UserError(
                f"all images of {part.csv} are in another CSV of the same images or in its "
                "official test: leave this CSV out"
            )
        kept.append(table)
    return kept


def _image_keys(names: Iterable[str], sheet: SourceTable) -> list[str]:
    """Names of one source's images without their folders, ending and case."""
    # CheXpert's patient00001/study1/view1_frontal
    count = 3 if sheet.image == ("Path",) else 1
    stems = (os.path.splitext(name.replace("\\", "/"))[0].casefold() for name in names)
    return ["/".join(stem.split("/")[-count:]) for stem in stems]


def shared_patients(tables: Sequence[LabelTable], parts: Sequence[Part]) -> list[str]:
    """A warning for each two CSVs, not both of known sources, whose patients share names."""
    warnings = []
    for one, other in combinations(range(len(tables)), 2):
        known = [parts[place].sheet.image != IMAGE_COLUMNS for place in (one, other)]
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


def labels_of_some(tables: Sequence[LabelTable], parts: Sequence[Part]) -> list[str]:
    """Of each CSV a note on the labels that another lacks, with names there that may mean the same.

    The tables have their labels renamed by the label map. A pair's row for a map is given once.
    """
    notes = []
    pairs: set[tuple[str, str]] = set()
    for place, (table, part) in enumerate(zip(tables, parts, strict=True)):
        others = [one for other, one in enumerate(tables) if other != place]
        everywhere = set(table.class_names).intersection(*(one.class_names for one in others))
        alone = [name for name in table.class_names if name not in everywhere]
        if not others or not alone:
            continue
        elsewhere = {normalize_name(name): name for one in others for name in one.class_names}
        lacking = {key: name for key, name in elsewhere.items() if name not in table.class_names}
        near = {
            name: lacking[key]
            for name in alone
            # Nodule and Lung nodule, and not Pneumonia and Pneumothorax
            for key in get_close_matches(normalize_name(name)[:200], lacking, n=1, cutoff=0.75)
        }
        names = [f"{name} (near {near[name]})" if name in near else name for name in alone]
        rows = [pair for pair in near.items() if pair[::-1] not in pairs]
        pairs.update(rows)
        note = f"Labels of {part.csv} that not every CSV has: {list_first(names, 12)}."
        if rows:
            lines = "; ".join(_csv_line(*row) for row in rows)
            note += f" To join two that mean the same, add to the CSV of --label_map: {lines}"
        notes.append(note)
    return notes


def _csv_line(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def with_source(table: LabelTable, part: Part, people: str) -> LabelTable:
    """The table with its source's name and "/" before images, `people` and "/" before patients and
    studies."""

    def prefixed(values: np.ndarray | None, letter: str) -> np.ndarray | None:
        if values is None:
            return None
        # a text for each distinct value, and not for each row
        codes, distinct = pd.factorize(values)
        texts = [f"{people}/{value.removeprefix(letter)}" for value in distinct]
        return np.array(texts, dtype=object)[codes]

    letters = ("p", "s") if part.sheet.patient == MIMIC_PATIENTS else ("", "")
    return replace(
        table,
        ids=[f"{part.name}/{one}" for one in table.ids],
        patients=prefixed(table.patients, letters[0]),
        studies=prefixed(table.studies, letters[1]),
    )


def join_tables(
    tables: Sequence[LabelTable], parts: Sequence[Part], class_names: Sequence[str]
) -> LabelTable:
    """One table of the classes `class_names`, NaN where a source has no such label.

    Raises UserError for an image file that is in two of them.
    """
    frames = [pd.DataFrame(table.targets, columns=[*table.class_names]) for table in tables]
    targets = pd.concat(frames).reindex(columns=[*class_names]).to_numpy(np.float32)
    if len(tables) == 1:
        return replace(tables[0], targets=targets, class_names=tuple(class_names))
    _refuse_shared_files(tables, parts)
    sizes = [len(table) for table in tables]
    notes = [note for table in tables for note in table.notes]
    patients = _joined([t.patients for t in tables], [t.ids for t in tables])
    if patients is not None:
        notes += [
            f"Warning: each image of {part.csv} counts as a patient of its own, as it names none."
            for table, part in zip(tables, parts, strict=True)
            if table.patients is None
        ]
    # where a source names no study, they could not be counted
    studies = [table.studies for table in tables if table.studies is not None]
    return LabelTable(
        ids=[name for table in tables for name in table.ids],
        images=Images.concatenate([table.images for table in tables]),
        patients=patients,
        studies=np.concatenate(studies) if len(studies) == len(tables) else None,
        views=_joined([t.views for t in tables], [[""] * size for size in sizes]),
        targets=targets,
        class_names=tuple(class_names),
        notes=tuple(notes),
        sources=np.repeat(np.arange(len(tables)), sizes),
        source_names=tuple(part.name for part in parts),
    )


def _joined(
    values: Sequence[np.ndarray | None], otherwise: Sequence[Sequence[str]]
) -> np.ndarray | None:
    """The values of all tables, `otherwise` where one has none; None where none has."""
    if all(one is None for one in values):
        return None
    pairs = zip(values, otherwise, strict=True)
    return np.concatenate([np.array(b, dtype=object) if a is None else a for a, b in pairs])


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
        names = np.array([name for table in tables for name in table.ids], dtype=object)
        one, other, *_ = names[files == files[again[0]]]
        raise UserError(
            f"{len(again):,} image file(s) are in more than one CSV: '{one}' and '{other}' are "
            f"both {files[again[0]]}. Keep each in one of them."
        )
