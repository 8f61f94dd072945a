"""LabelTable: images, patients, views and labels, read from a sheet and an image folder."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.data import LabelReading
from core.data.csv.columns import Column, find_column, find_image_column, take_rows
from core.data.csv.labels import add_absent, choose_labels, read_targets
from core.data.csv.patients import likely_patient_columns
from core.data.csv.views import view_group
from core.data.images.collection import Images
from core.data.images.dicom.header import FIELDS, from_headers, patients_of
from core.data.images.find_files import match_images
from core.data.sources.source_table import SourceTable
from core.errors import UserError, escape_control, list_first

# what a spreadsheet runs
FORMULA = "=+-@"
# 1.90E+38 is what a spreadsheet makes of a long number: many patients become one.
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
PATIENT_IN_PATH = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]")
# what a LabelTable may know of each image
IMAGE_FIELDS = ("patients", "studies", "views", "sources")


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelTable:
    """N images with C labels. Texts are as in the CSV, so "00012" stays "00012"."""

    ids: list[str]
    images: Images
    """An existing file, or a row of a pack, for each; none where only the labels were read."""
    patients: np.ndarray | None = None
    studies: np.ndarray | None = None
    views: np.ndarray | None = None
    """(N,) str each"""
    targets: np.ndarray
    """(N, C) float32: 1, 0, and NaN for unknown"""
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Sentences for the user: what was taken for what, and what looks doubtful."""
    id_column: str = "ImageID"
    """What the CSV calls the images' names."""
    sources: np.ndarray | None = None
    """(N,) int: which of `source_names` each image is from; None for a single source"""
    source_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[str]:
        """The path of each image; empty where only the labels were read."""
        return self.images.paths

    def take(self, rows: np.ndarray) -> "LabelTable":
        """These rows alone, (M,) int or (N,) bool, in their order."""
        places = np.flatnonzero(rows) if rows.dtype == bool else rows
        known = {name: getattr(self, name) for name in IMAGE_FIELDS}
        return replace(
            self,
            ids=[self.ids[place] for place in places.tolist()],
            images=self.images.take(places) if len(self.images) else self.images,
            targets=self.targets[places],
            **{name: values[places] for name, values in known.items() if values is not None},
        )


def build_label_table(
    sheet: SourceTable, image_dir: Path | None, labels: Sequence[str] | None, reading: LabelReading
) -> LabelTable:
    """The images of a sheet that are wanted, their files and labels, as `read_table` says."""
    path, views, notes = sheet.path, reading.views, list(sheet.notes)
    image = find_image_column(path, sheet.columns, reading.image_column, sheet.image)
    requests = {field: getattr(reading, f"{field}_column") for field in FIELDS}
    found = {
        field: find_column(path, sheet.columns, requests[field], known, f"--{field}_column")
        for field, known in zip(FIELDS, (sheet.patient, sheet.study, sheet.view), strict=True)
    }
    used = {image, *filter(None, found.values())}
    columns = _take_split(sheet, reading.official_split, notes)
    if found["view"] is not None and views != "all":
        columns = take_rows(columns, _are_wanted(path, columns[found["view"]], views, notes))
    chosen = (sheet.labels or None) if labels is None else labels
    if chosen is not None and sheet.lists:
        columns, absent = add_absent(path, columns, chosen, sheet.labels or ())
        notes += absent
    no_labels = used if chosen is not None else used.union(sheet.no_labels)
    class_names, left_out = choose_labels(path, columns, no_labels, chosen)
    notes += left_out
    if labels is None:
        notes.append(f"Labels ({len(class_names)}, found in {path}): {', '.join(class_names)}.")
    ids = read_ids(columns[image])
    images = Images.of_files([]) if image_dir is None else match_images(ids, image_dir)
    asked = [f for f in FIELDS if found[f] is None and requests[f].lower() != "none"]
    headers = _ask_headers(path, images.paths, asked)
    if found["view"] is None and views != "all":
        wanted = _are_wanted(path, headers.get("view"), views, notes)
        columns, headers = take_rows(columns, wanted), take_rows(headers, wanted)
        ids, images = list(compress(ids, wanted)), images.take(wanted)
    blank = _meaning_of_blank(sheet, reading.blank, notes)
    targets, doubts = read_targets(path, columns, class_names, reading.uncertain, blank)
    known = used.union(class_names, sheet.no_labels)
    notes += (*doubts, *_doubtful_names(path, columns, known, [*class_names, *ids]))
    told = headers | {field: columns[name] for field, name in found.items() if name is not None}
    patients = None
    if found["patient"] is not None:
        patients = _patients_of_column(told["patient"])
    elif "patient" in asked:
        header = told.get("patient")
        likely = likely_patient_columns(columns, known)
        patients, note = _patients_without_column(path, header, ids, images.paths, likely)
        notes.append(note)
    return LabelTable(
        ids=ids,
        images=images,
        patients=patients,
        studies=told["study"].cells if "study" in told else None,
        views=told["view"].cells if "view" in told else None,
        targets=targets,
        class_names=class_names,
        notes=tuple(map(escape_control, notes)),
        id_column=image,
    )


def _meaning_of_blank(sheet: SourceTable, given: str | None, notes: list[str]) -> str | None:
    """What a blank label means: as `given`, else as is usual in the source; adds to `notes`."""
    usual = sheet.blank
    if usual is not None and given is None:
        notes.append(f"A blank label of {sheet.path} means {usual}, as is usual there (--blank).")
    elif usual not in (None, given):
        notes.append(
            f"Warning: a blank label of {sheet.path} means {given}, as --blank says, and not "
            f"{usual} as is usual there."
        )
    return given or usual


def _doubtful_names(
    path: Path, columns: dict[str, Column], known: set[str], written: Sequence[str]
) -> Iterator[str]:
    """Sentences about columns of no use, and about names that a spreadsheet would run."""
    # a line's trailing comma makes a column without a name and cells
    unused = [name for name, c in columns.items() if name not in known and (name or any(c.values))]
    if unused:
        names = ", ".join(name or "(unnamed)" for name in unused)
        yield f"Columns of {path} that are not used: {names}."
    if formulas := [name[:60] for name in written if name and name[0] in FORMULA]:
        yield (
            f"Warning: {len(formulas):,} image(s) or label(s) of {path} begin as formulas do "
            f"({list_first(formulas)}): open files with these names in a spreadsheet as text only."
        )


def _are_wanted(path: Path, column: Column | None, views: str, notes: list[str]) -> np.ndarray:
    """Whether each image is of the wanted views, (N,) bool; adds to `notes` where some are not."""
    if column is None:
        raise UserError(
            f"--views {views} needs a column of views (--view_column), or DICOM files whose "
            f"headers tell them, and {path} has neither: name the column, or leave --views out."
        )
    wanted = column.each(lambda view: view_group(view) == views)
    if not wanted.any():
        counts = pd.Series(column.cells).value_counts().head(12)
        there = ", ".join(f"{view or '(blank)'} {n:,}" for view, n in counts.items())
        raise UserError(
            f"--views {views} leaves none of the {len(wanted):,} images of {path}: their views are "
            f"{there}."
        )
    if not wanted.all():
        notes.append(
            f"Of {path} {_share(wanted)} images are {views} views; the others are left out."
        )
    return wanted


def _take_split(sheet: SourceTable, wanted: str, notes: list[str]) -> dict[str, Column]:
    """The images in the part of the official split; adds to `notes`."""
    path, test, why = sheet.path, sheet.official_test, sheet.no_official_test
    if test is None and wanted == "test":
        raise UserError(
            f"{path} names no official test images{why and f' ({why})'}: pass --official_split all."
        )
    if test is None and why and wanted == "train":
        notes.append(f"Warning: no official test images of {path} are left out: {why}.")
    if test is None or wanted == "all":
        return sheet.columns
    taken = test if wanted == "test" else ~test
    if not taken.any():
        raise UserError(
            f"--official_split {wanted} leaves none of the {len(test):,} images of {path}: all of "
            f"them are {'training' if wanted == 'test' else 'official test'} images."
        )
    does = "left out (--official_split all takes them too)" if wanted == "train" else "taken alone"
    notes.append(f"Of {path} {_share(test)} images, its official test, are {does}.")
    return take_rows(sheet.columns, taken)


def _share(taken: np.ndarray) -> str:
    return f"{int(taken.sum()):,} of {len(taken):,}"


def read_ids(column: Column) -> list[str]:
    """The images that a column names.

    Raises UserError for a name that is blank, repeated, or of no file in the folder or in a CSV.
    """
    if "" in column.values:
        raise UserError(f"{column.place('')} names no image in column '{column.name}'.")
    for value in (value for value in column.values if "\r" in value or ".." in value):
        image = f"{column.place(value)} names the image '{value}'"
        if "\r" in value:
            raise UserError(f"{image}, with a carriage return, which would tear a CSV: rename it.")
        if ".." in re.split(r"[/\\]", value):
            raise UserError(f"{image}, which leaves the image folder. Give paths without '..'.")
    again = np.flatnonzero(column.counts > 1)
    if len(again):
        row = column.row_at(int(np.flatnonzero(column.codes == again[0])[1]))
        raise UserError(
            f"{column.path}: {len(again):,} image(s) are in column '{column.name}' more than "
            f"once: {list_first([column.values[code] for code in again])} (again in row {row}; the "
            "header is row 1). Keep one row for each image."
        )
    return list(column.cells)


def _ask_headers(csv: Path, paths: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
    """Those of `FIELDS` that are `wanted`, as `from_headers` finds them; without blank columns."""
    headers = from_headers(paths) if wanted else {}
    told = {}
    for name in wanted if headers else ():
        codes, values = pd.factorize(headers[name])
        if name == "patient" or any(values):
            told[name] = Column(name, csv, codes.astype(np.int32), values.tolist())
    return told


def _patients_of_column(column: Column) -> np.ndarray:
    """Patients (N,) str. Raises UserError where one is blank, or a spreadsheet has rounded them."""
    way_out = "pass --patient_column none, and the folds may share patients."
    if "" in column.values:
        raise UserError(
            f"{column.place('')} names no patient in '{column.name}'. Fill it in, or {way_out}"
        )
    for value in filter(ROUNDED_NUMBER.fullmatch, column.values):
        raise UserError(
            f"{column.cell(value)}, a rounded number that merges many patients into one. Use a "
            f"file that was not saved by a spreadsheet, or {way_out}"
        )
    return column.cells


def _patients_without_column(
    csv: Path,
    header: Column | None,
    ids: Sequence[str],
    paths: Sequence[str],
    likely: Sequence[str],
) -> tuple[np.ndarray | None, str]:
    """Patients (N,) str by the images' names, else by DICOM headers, or None; and a sentence, which
    names the `likely` columns."""
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        note = f"Patients are taken from the images' paths, such as '{patients[0]}' in {ids[0]}."
        return np.array(patients, dtype=object), note
    if header is not None:
        return patients_of(header.cells, paths)
    hint = f" (perhaps {list_first(likely)})" if likely else ""
    return None, (
        f"Warning: {csv} has no known patient column, so that images of one patient may fall into "
        f"two folds and inflate every number. Name it with --patient_column{hint}."
    )
