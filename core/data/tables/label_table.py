"""LabelTable: images, patients, studies, views and labels of a dataset."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.data import LabelReading
from core.data.csv.columns import (
    AS_EARLIER,
    EARLIER_PATIENT_COLUMNS,
    PATIENT_COLUMNS,
    Column,
    find_column,
    find_image_column,
    take_rows,
)
from core.data.csv.labels import add_absent, choose_labels, read_targets
from core.data.csv.patients import infer_patients, likely_patient_columns, read_patients
from core.data.csv.views import view_group
from core.data.images.collection import Images
from core.data.images.dicom.header import FIELDS, from_headers
from core.data.images.find_files import match_images, missing_remedy
from core.data.sources.source_table import SourceTable
from core.errors import UserError, escape_control, list_first

# first characters of a spreadsheet formula
FORMULA = "=+-@"
# optional per-image fields of a LabelTable
IMAGE_FIELDS = ("patients", "studies", "views", "sources")


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelTable:
    """Table of N images with C labels. Texts keep the form of the CSV: "00012" stays "00012"."""

    ids: list[str]
    """N distinct image names"""
    images: Images
    """An existing file or a pack row for each image; empty if only the labels were read."""
    patients: np.ndarray | None = None
    """(N,) str; None if unknown"""
    studies: np.ndarray | None = None
    """(N,) str; None if unknown"""
    views: np.ndarray | None = None
    """(N,) str, such as PA; None if unknown"""
    targets: np.ndarray
    """(N, C) float32: 1, 0, between them for a soft label of the training, and NaN for unknown"""
    class_names: tuple[str, ...]
    """C labels, in the order of the columns of `targets`"""
    notes: tuple[str, ...] = ()
    """Messages for the user: how the table was interpreted, and warnings."""
    id_column: str = "ImageID"
    """Name of the image column in the CSV."""
    sources: np.ndarray | None = None
    """(N,) int: index into `source_names` of each image; None for a single source"""
    source_names: tuple[str, ...] = ()
    """S names; empty for a single source"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[str]:
        """Path of each image; empty if only the labels were read."""
        return self.images.paths

    @property
    def is_soft(self) -> np.ndarray:
        """(N, C) bool: True for soft labels."""
        return (self.targets > 0) & (self.targets < 1)

    @cached_property
    def hard_targets(self) -> np.ndarray:
        """`targets` for validation and scores: NaN for soft labels."""
        soft = self.is_soft
        return np.where(soft, np.float32(np.nan), self.targets) if soft.any() else self.targets

    @property
    def binary_targets(self) -> np.ndarray:
        """`targets` for folds and samplers: soft labels are 1 from .5 on, else 0."""
        return np.where(self.is_soft, self.targets >= 0.5, self.targets).astype(np.float32)

    @property
    def is_pseudo(self) -> np.ndarray:
        """(N,) bool: True for images with soft labels and without hard ones."""
        return self.is_soft.any(axis=1) & np.isnan(self.hard_targets).all(axis=1)

    def hard(self) -> "LabelTable":
        """Table of hard labels, without the images that have soft ones alone."""
        if not self.is_soft.any():
            return self
        return replace(self, targets=self.hard_targets).take(~self.is_pseudo)

    def take(self, rows: np.ndarray) -> "LabelTable":
        """Table of these rows, (M,) int in their order or (N,) bool."""
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
    source: SourceTable,
    image_dir: Path | None,
    labels: Sequence[str] | None,
    reading: LabelReading,
    *,
    soft: bool = False,
) -> LabelTable:
    """Select the images of a source and read their files and labels.

    `soft` allows soft labels; other arguments and errors as in `read_table`.
    """
    path, views, notes = source.path, reading.views, list(source.notes)
    image = find_image_column(path, source.columns, reading.image_column, source.image)
    requests = {field: getattr(reading, f"{field}_column") for field in FIELDS}
    patient = source.patient
    if requests["patient"] == AS_EARLIER:
        requests["patient"] = ""
        patient = EARLIER_PATIENT_COLUMNS if patient == PATIENT_COLUMNS else patient
    found = {
        field: find_column(path, source.columns, requests[field], known, f"--{field}_column")
        for field, known in zip(FIELDS, (patient, source.study, source.view), strict=True)
    }
    used = {image, *filter(None, found.values())}
    columns = _take_split(source, reading.official_split, notes)
    if found["view"] is not None and views != "all":
        columns = take_rows(columns, _select_views(path, columns[found["view"]], views, notes))
    chosen = (source.labels or None) if labels is None else labels
    if chosen is not None and source.lists:
        columns, absent = add_absent(path, columns, chosen, source.labels or ())
        notes += absent
    no_labels = used if chosen is not None else used.union(source.no_labels)
    class_names, left_out = choose_labels(path, columns, no_labels, chosen, soft=soft)
    notes += left_out
    if labels is None:
        notes.append(f"Labels ({len(class_names)}, found in {path}): {', '.join(class_names)}.")
    taken = [f"{what} '{name}'" for what, name in {"image": image, **found}.items() if name]
    notes.append(f"Columns of {path}: {', '.join(taken)}.")
    ids = read_ids(columns[image])
    images = Images.of_files([])
    if image_dir is not None:
        images = match_images(ids, image_dir, missing_remedy("--train_dir"))
    missing = [f for f in FIELDS if found[f] is None and requests[f].lower() != "none"]
    headers = _read_headers(path, images.paths, missing)
    if found["view"] is None and views != "all":
        wanted = _select_views(path, headers.get("view"), views, notes)
        columns, headers = take_rows(columns, wanted), take_rows(headers, wanted)
        ids, images = list(compress(ids, wanted)), images.take(wanted)
    blank = _choose_blank(source, reading.blank, notes)
    targets, doubts = read_targets(path, columns, class_names, reading.uncertain, blank, soft=soft)
    known = used.union(class_names, source.no_labels)
    notes += (*doubts, *_describe_doubtful_names(path, columns, known, [*class_names, *ids]))
    by_field = headers | {f: columns[name] for f, name in found.items() if name is not None}
    patients = None
    if found["patient"] is not None:
        patients = read_patients(by_field["patient"])
    elif "patient" in missing:
        header = by_field.get("patient")
        likely = likely_patient_columns(columns, known)
        patients, note = infer_patients(path, header, ids, images.paths, likely)
        notes.append(note)
    return LabelTable(
        ids=ids,
        images=images,
        patients=patients,
        studies=by_field["study"].cells if "study" in by_field else None,
        views=by_field["view"].cells if "view" in by_field else None,
        targets=targets,
        class_names=class_names,
        notes=tuple(map(escape_control, notes)),
        id_column=image,
    )


def _choose_blank(source: SourceTable, given: str | None, notes: list[str]) -> str | None:
    """Meaning of a blank label: `given`, else the source's usual one; adds to `notes`."""
    usual = source.blank
    if usual is not None and given is None:
        notes.append(f"A blank label of {source.path} means {usual}, its default (--blank).")
    elif usual not in (None, given):
        notes.append(
            f"Warning: a blank label of {source.path} means {given} by --blank; the default there "
            f"is {usual}."
        )
    return given or usual


def _describe_doubtful_names(
    path: Path, columns: dict[str, Column], known: set[str], written: Sequence[str]
) -> Iterator[str]:
    """Notes on unused columns, and on names that a spreadsheet would run as formulas."""
    # a trailing comma makes a column without a name and cells
    unused = [name for name, c in columns.items() if name not in known and (name or any(c.values))]
    if unused:
        names = ", ".join(name or "(unnamed)" for name in unused)
        yield f"Columns of {path} that are not used: {names}."
    if formulas := [name[:60] for name in written if name and name[0] in FORMULA]:
        yield (
            f"Warning: {len(formulas):,} image(s) or label(s) of {path} begin like a formula "
            f"({list_first(formulas)}): import files with these names into a spreadsheet as text."
        )


def _select_views(path: Path, column: Column | None, views: str, notes: list[str]) -> np.ndarray:
    """Mask of the images of the wanted views, (N,) bool; adds to `notes` if some are left out."""
    if column is None:
        raise UserError(
            f"--views {views}: {path} has no view column, and its images have no DICOM headers "
            "with views. Name the column with --view_column, or leave --views out."
        )
    wanted = column.each(lambda view: view_group(view) == views)
    if not wanted.any():
        counts = pd.Series(column.cells).value_counts().head(12)
        there = ", ".join(f"{view or '(blank)'} {n:,}" for view, n in counts.items())
        raise UserError(
            f"--views {views} selects none of the {len(wanted):,} images of {path}: their views "
            f"are {there}."
        )
    if not wanted.all():
        notes.append(
            f"Of {path} {_share(wanted)} images are {views} views; the others are left out."
        )
    return wanted


def _take_split(source: SourceTable, wanted: str, notes: list[str]) -> dict[str, Column]:
    """Columns restricted to a part of the official split; adds to `notes`."""
    path, test, why = source.path, source.official_test, source.no_official_test
    if test is None and wanted == "test":
        raise UserError(
            f"{path} has no official test images{why and f' ({why})'}: pass --official_split all."
        )
    if test is None and why and wanted == "train":
        notes.append(f"Warning: no official test images of {path} are left out: {why}.")
    if test is None or wanted == "all":
        return source.columns
    taken = test if wanted == "test" else ~test
    if not taken.any():
        raise UserError(
            f"--official_split {wanted} selects none of the {len(test):,} images of {path}: all "
            f"are {'training' if wanted == 'test' else 'official test'} images."
        )
    does = "left out (--official_split all adds them)" if wanted == "train" else "selected"
    notes.append(f"Of {path} {_share(test)} images, its official test, are {does}.")
    return take_rows(source.columns, taken)


def _share(taken: np.ndarray) -> str:
    return f"{int(taken.sum()):,} of {len(taken):,}"


def read_ids(column: Column) -> list[str]:
    """Image names of a column, N.

    Raises UserError for a name that is blank, repeated, outside the folder or unfit for a CSV.
    """
    if "" in column.values:
        raise UserError(f"{column.place('')} has no image in column '{column.name}': fill it in.")
    for value in (value for value in column.values if "\r" in value or ".." in value):
        image = f"{column.place(value)} names the image '{value}'"
        if "\r" in value:
            raise UserError(f"{image} with a carriage return, which would break a CSV: rename it.")
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


def _read_headers(csv: Path, paths: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
    """Columns of the `wanted` FIELDS from DICOM headers; blank ones are left out except patient."""
    headers = from_headers(paths) if wanted else {}
    read = {}
    for name in wanted if headers else ():
        codes, values = pd.factorize(headers[name])
        if name == "patient" or any(values):
            read[name] = Column(name, csv, codes.astype(np.int32), values.tolist())
    return read
