"""Merging of the label tables of several sources."""

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

# patient column of MIMIC-CXR-JPG and CXR-LT 2023 and 2024; only one of them writes p10000032
MIMIC_PATIENTS = ("subject_id",)


@dataclass(frozen=True)
class SourceFile:
    """One CSV with its image folder, name and reading settings."""

    source: SourceTable
    folder: Path | None
    """None if only the labels are read"""
    name: str
    """Prefix of its image names"""
    reading: LabelReading
    soft: bool = False
    """Whether soft labels are allowed"""

    @property
    def csv(self) -> Path:
        """Path of the CSV."""
        return self.source.path

    def read(self, labels: Sequence[str] | None) -> LabelTable:
        """Read its table with these labels (None: detect them)."""
        table = build_label_table(self.source, self.folder, labels, self.reading, soft=self.soft)
        pseudo = table.is_pseudo
        if pseudo.all() or not pseudo.any() or not np.isnan(table.hard_targets).all():
            return table
        # soft labels alone, and images that would be validated without a label
        note = f"Images of {self.csv} without a label are left out: {int((~pseudo).sum()):,}."
        return replace(table.take(pseudo), notes=(*table.notes, note))


def rename_labels(table: LabelTable, names: Mapping[str, str], csv: Path) -> LabelTable:
    """Rename the labels of a table by `names`, and merge columns that get the same name.

    A merged label is 1 if any of its columns is 1, else NaN (unknown) if any is, else the largest:
    0 if all are 0.
    """
    columns = defaultdict(list)
    for position, label in enumerate(table.class_names):
        columns[names[label]].append(position)
    targets = np.empty((len(table), len(columns)), dtype=np.float32)
    notes = list(table.notes)
    for place, (name, members) in enumerate(columns.items()):
        several = table.targets[:, members]
        targets[:, place] = np.where((several == 1).any(axis=1), 1, several.max(axis=1))
        if len(members) > 1:
            alike = " and ".join(table.class_names[member] for member in members)
            notes.append(f"Columns {alike} of {csv} are merged into {name}: 1 if any of them is 1.")
    renamed = [
        f"{one} is {name}"
        for one, name in names.items()
        if normalize_name(one) != normalize_name(name)
    ]
    if renamed:
        notes.append(f"Labels of {csv} by the label map: {', '.join(renamed)}.")
    return replace(table, targets=targets, class_names=tuple(columns), notes=tuple(notes))


def find_same_people(files: Sequence[SourceFile]) -> list[int]:
    """For each CSV, the index of the first CSV of the same images and patients.

    MIMIC-CXR-JPG and CXR-LT 2023 and 2024 share them, as do PadChest and CXR-LT 2026.
    """
    # MIMIC-CXR-JPG may be read by study
    sources = [file.source for file in files]
    called = [s.patient if s.patient == MIMIC_PATIENTS else s.image for s in sources]
    return [p if names == IMAGE_COLUMNS else called.index(names) for p, names in enumerate(called)]


def drop_shared_images(
    tables: Sequence[LabelTable], files: Sequence[SourceFile], same_people: Sequence[int]
) -> list[LabelTable]:
    """Remove from each table the images of an earlier one of the same dataset.

    `same_people` is the result of `find_same_people`. With --official_split train, official test
    images of one table are removed from all. Raises UserError if a table has no image left.
    """
    result: list[LabelTable] = []
    tests, seen = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
    for table, file, first in zip(tables, files, same_people, strict=True):
        source = file.source
        if source.official_test is not None and file.reading.official_split == "train":
            names = source.columns[table.id_column].cells
            tests[first].update(_image_keys(names[source.official_test], source))
    for table, file, first in zip(tables, files, same_people, strict=True):
        if same_people.count(first) > 1:
            keys = pd.Index(_image_keys(table.ids, file.source))
            is_test, is_seen = keys.isin(list(tests[first])), keys.isin(list(seen[first]))
            seen[first].update(keys)
            notes = tuple(
                f"Warning: {int(wrong.sum()):,} of {len(keys):,} images of {file.csv} are left "
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
                f"all images of {file.csv} are in another CSV or its official test: leave this CSV "
                "out"
            )
        result.append(table)
    return result


def _image_keys(names: Iterable[str], source: SourceTable) -> list[str]:
    """Image names of a source, case-folded, without folders and file extension."""
    # CheXpert's patient00001/study1/view1_frontal
    count = 3 if source.image == ("Path",) else 1
    stems = (os.path.splitext(name.replace("\\", "/"))[0].casefold() for name in names)
    return ["/".join(stem.split("/")[-count:]) for stem in stems]


def describe_shared_patients(
    tables: Sequence[LabelTable], files: Sequence[SourceFile]
) -> list[str]:
    """A warning for each pair of CSVs, not both of known sources, that share patient names.

    CSVs with soft labels alone are left out: `prefix_sources` finds their patients in the others.
    """
    warnings = []
    hard = [place for place, table in enumerate(tables) if not table.is_pseudo.all()]
    for one, other in combinations(hard, 2):
        known = [files[place].source.image != IMAGE_COLUMNS for place in (one, other)]
        first, second = tables[one].patients, tables[other].patients
        if all(known) or first is None or second is None:
            continue
        if count := len(np.intersect1d(pd.unique(first), pd.unique(second))):
            names = "patient name is" if count == 1 else "patient names are"
            warnings.append(
                f"Warning: {count:,} {names} in both {files[one].csv} and {files[other].csv} and "
                f"count{'s' if count == 1 else ''} as different people. If they are the same, put "
                "them in one CSV."
            )
    return warnings


def describe_partial_labels(tables: Sequence[LabelTable], files: Sequence[SourceFile]) -> list[str]:
    """A note for each CSV on labels that another CSV lacks, with similar names there.

    The labels are already renamed by the label map. A pair is suggested as a map row only once.
    """
    notes = []
    pairs: set[tuple[str, str]] = set()
    for place, (table, file) in enumerate(zip(tables, files, strict=True)):
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
            # matches Nodule with Lung nodule, but not Pneumonia with Pneumothorax
            for key in get_close_matches(normalize_name(name)[:200], lacking, n=1, cutoff=0.75)
        }
        names = [f"{name} (near {near[name]})" if name in near else name for name in alone]
        rows = [pair for pair in near.items() if pair[::-1] not in pairs]
        pairs.update(rows)
        note = f"Labels of {file.csv} that are not in every CSV: {list_first(names, 12)}."
        if rows:
            lines = "; ".join(_csv_line(*row) for row in rows)
            note += " To merge two that mean the same, give --label_map a CSV with the header "
            note += f"label,means and the rows {lines}"
        notes.append(note)
    return notes


def _csv_line(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def join_tables(
    tables: Sequence[LabelTable], files: Sequence[SourceFile], class_names: Sequence[str]
) -> LabelTable:
    """Concatenate the tables; classes are `class_names`, NaN where a source lacks the label.

    Raises UserError for an image file in two tables.
    """
    frames = [pd.DataFrame(table.targets, columns=[*table.class_names]) for table in tables]
    targets = pd.concat(frames).reindex(columns=[*class_names]).to_numpy(np.float32)
    if len(tables) == 1:
        return replace(tables[0], targets=targets, class_names=tuple(class_names))
    _refuse_shared_files(tables, files)
    sizes = [len(table) for table in tables]
    notes = [note for table in tables for note in table.notes]
    patients = None
    # only to keep the patients of hard labels apart
    if any(t.patients is not None and not t.is_pseudo.all() for t in tables):
        patients = _concatenate([t.patients for t in tables], [t.ids for t in tables])
    if patients is not None:
        notes += [
            f"Warning: {file.csv} has no patients, so each of its images counts as one patient."
            for table, file in zip(tables, files, strict=True)
            if table.patients is None
        ]
    # if one source has no studies, their number is unknown
    studies = [table.studies for table in tables if table.studies is not None]
    return LabelTable(
        ids=[name for table in tables for name in table.ids],
        images=Images.concatenate([table.images for table in tables]),
        patients=patients,
        studies=np.concatenate(studies) if len(studies) == len(tables) else None,
        views=_concatenate([t.views for t in tables], [[""] * size for size in sizes]),
        targets=targets,
        class_names=tuple(class_names),
        notes=tuple(notes),
        sources=np.repeat(np.arange(len(tables)), sizes),
        source_names=tuple(file.name for file in files),
    )


def _concatenate(
    values: Sequence[np.ndarray | None], otherwise: Sequence[Sequence[str]]
) -> np.ndarray | None:
    """Concatenate values of all tables, `otherwise` for a missing one; None if all are missing."""
    if all(one is None for one in values):
        return None
    pairs = zip(values, otherwise, strict=True)
    return np.concatenate([np.array(b, dtype=object) if a is None else a for a, b in pairs])


def _refuse_shared_files(tables: Sequence[LabelTable], files: Sequence[SourceFile]) -> None:
    """Raise UserError for an image file in two CSVs, even if their folders are links."""
    given = [os.path.join(file.folder, "") for file in files if file.folder is not None]
    real = [os.path.join(os.path.realpath(folder), "") for folder in given]
    if not any(one.startswith(other) for one, other in permutations(real, 2)):
        return
    real_paths = pd.Series(
        [
            root + path.removeprefix(folder)
            for table, folder, root in zip(tables, given, real, strict=True)
            for path in table.paths
        ]
    )
    again = np.flatnonzero(real_paths.duplicated())
    if len(again):
        names = np.array([name for table in tables for name in table.ids], dtype=object)
        one, other, *_ = names[real_paths == real_paths[again[0]]]
        raise UserError(
            f"{len(again):,} image file(s) are in more than one CSV: '{one}' and '{other}' are "
            f"both {real_paths[again[0]]}. Keep each file in one CSV."
        )
