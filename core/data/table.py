"""CSV and image folder → LabelTable: what is known about each image, checked once, in one place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.data.columns import IMAGE_COLUMNS, Column, find_column, take_rows
from core.data.dicom import from_headers
from core.data.files import match_images
from core.data.labels import choose_labels, read_targets
from core.data.pack_format import packs_of
from core.data.sources import read_sheet
from core.data.sources.sheet import Sheet
from core.data.views import of_views
from core.errors import UserError, nearest, some

# 1.90E+38 is what a spreadsheet makes of a long number: many patients become one.
ROUNDED_NUMBER = re.compile(r"-?\d+([.,]\d+[eE][+-]?|[eE]\+)\d+")
SPLITS = ("all", "train", "test")
PATIENT_IN_PATH = re.compile(r"(?:^|/)(patient\d+)/")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """N images with C labels. Texts are as in the CSV, so "00012" stays "00012"."""

    ids: list[str]
    paths: list[str]
    """An existing file for each image; empty where only the labels were read."""
    patients: np.ndarray | None
    """(N,) str"""
    studies: np.ndarray | None
    """(N,) str"""
    views: np.ndarray | None
    """(N,) str"""
    targets: np.ndarray
    """(N, C) float32: 1, 0, and NaN for unknown"""
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences for the user: what was taken for what, and what looks doubtful."""
    id_column: str = "ImageID"
    """What the CSV calls the images' names."""
    sources: np.ndarray | None = None
    """(N,) int: which of `source_names` each image is from; None for a single source"""
    source_names: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()
    """Folders of packs: a path that begins with one of them names an image in it, and no file."""

    def __len__(self) -> int:
        return len(self.ids)


def read_table(
    csv: str | Path,
    image_dir: str | Path | None,
    labels: Sequence[str] | None = None,
    *,
    image_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    view_column: str | None = None,
    uncertain: str = "ignore",
    blank: str | None = None,
    source: str | None = None,
    views: str = "all",
    readers: str = "majority",
    official_split: str = "all",
    sheet: Sheet | None = None,
) -> LabelTable:
    """Read a CSV or a known dataset's own table, and find the images (none: `image_dir` is None).

    `labels` names the label columns in the wanted order; without it every column of 1, 0, -1 and
    blanks that is no known other thing is one. Columns that are not named are found by the names
    that common datasets use; "none" as `patient_column`, `study_column` or `view_column` means
    that there is none. `uncertain` (ignore, zero, one) says what -1 means, `blank` (unknown, zero)
    what an empty label means. `source` and `readers` as in `core.data.sources.read_sheet`; `views`
    (all, frontal, lateral) and `official_split` (all, train, test) say which images are taken.
    `sheet` is what `read_sheet` made of the CSV, where it is read already.

    Raises UserError for anything that is missing, ambiguous or not a label, naming the place.
    """
    path = Path(csv)
    if sheet is None:
        sheet = read_sheet(path, source, image_column=image_column, readers=readers)
    requests = (image_column, patient_column, study_column, view_column)
    image, patient, study, view = _find_columns(path, sheet, requests)
    used = {name for name in (image, patient, study, view) if name is not None}
    columns, notes = _take_images(path, sheet, view, official_split, views)

    wished = (sheet.labels or None) if labels is None else labels
    no_labels = used if wished is not None else used.union(sheet.no_labels)
    class_names = choose_labels(path, columns, no_labels, wished)
    if blank is None and sheet.blank is not None:
        blank = sheet.blank
        notes.append(f"A blank label of {path} means {blank}, as is usual there (--blank).")
    targets, doubts = read_targets(path, columns, class_names, uncertain, blank)
    if labels is None:
        notes.append(f"Labels ({len(class_names)}, found in {path}): {', '.join(class_names)}.")
    notes += doubts
    known = used.union(class_names, sheet.no_labels)
    ignored = [name or "(unnamed)" for name in columns if name not in known]
    if ignored:
        notes.append(f"Columns of {path} that are not used: {', '.join(ignored)}.")

    ids = read_ids(path, image, columns[image])
    paths = [] if image_dir is None else match_images(ids, Path(image_dir))
    studies = None if study is None else columns[study].cells
    positions = None if view is None else columns[view].cells
    if patient is not None:
        people: np.ndarray | None = _read_patients(path, patient, columns[patient])
    elif not sheet.patient or (patient_column is not None and patient_column.lower() == "none"):
        people = None
    else:
        people, note = _patients_from_paths(path, ids)
        if people is None and (told := from_headers(paths)) is not None:
            people, told_studies, told_positions, note = told
            studies = told_studies if study is None else studies
            positions = told_positions if view is None else positions
        notes.append(note)
    return LabelTable(
        ids=ids,
        paths=paths,
        packs=() if image_dir is None else packs_of(image_dir),
        patients=people,
        studies=studies,
        views=positions,
        targets=targets,
        class_names=class_names,
        notes=tuple(notes),
        id_column=image,
    )


def _find_columns(
    path: Path, sheet: Sheet, requests: Sequence[str | None]
) -> tuple[str, str | None, str | None, str | None]:
    """The columns of image, patient, study and view: those of `requests`, else the usual ones."""
    usual = (sheet.image, sheet.patient, sheet.study, sheet.view)
    flags = ("--image_column", "--patient_column", "--study_column", "--view_column")
    image, patient, study, view = (
        find_column(path, sheet.columns, request, names, flag)
        for request, names, flag in zip(requests, usual, flags, strict=True)
    )
    if image is None:
        raise UserError(
            f"{path} has no column with the images' names{nearest(IMAGE_COLUMNS[0], sheet.columns)}"
            ". Name it with --image_column; cells are separated by commas."
        )
    return image, patient, study, view


def _take_images(
    path: Path, sheet: Sheet, view: str | None, official_split: str, views: str
) -> tuple[dict[str, Column], list[str]]:
    """The rows that are wanted of a sheet, and its sentences with those about what is left out."""
    columns, notes = sheet.columns, list(sheet.notes)
    in_split, told = _of_split(path, sheet, official_split)
    notes += told
    if in_split is not None:
        columns = take_rows(columns, in_split)
    if views != "all":
        wanted = of_views(path, None if view is None else columns[view], views)
        if not wanted.all():
            notes.append(
                f"Of {path} {_share(wanted)} images are {views} views; the others are left out."
            )
            columns = take_rows(columns, wanted)
    return columns, notes


def _of_split(path: Path, sheet: Sheet, wanted: str) -> tuple[np.ndarray | None, list[str]]:
    """Whether each image is in the part of the official split, (N,) bool; None where all are."""
    if wanted not in SPLITS:
        raise UserError(f"--official_split {wanted} is none of {', '.join(SPLITS)}.")
    test, why = sheet.official_test, sheet.no_official_test
    if test is None and wanted == "test":
        raise UserError(
            f"{path} names no official test images{why and f' ({why})'}: pass --official_split all."
        )
    if test is None:
        warning = f"Warning: no official test images of {path} are left out: {why}."
        return None, [warning] if why and wanted == "train" else []
    if wanted == "all":
        return None, []
    taken = test if wanted == "test" else ~test
    if not taken.any():
        raise UserError(
            f"--official_split {wanted} leaves none of the {len(test):,} images of {path}: all of "
            f"them are {'training' if wanted == 'test' else 'official test'} images."
        )
    if wanted == "test":
        return taken, [f"Of {path} {_share(taken)} images, its official test, are taken alone."]
    return taken, [
        f"Of {path} {_share(test)} images, its official test, are left out (--official_split all "
        "takes them too)."
    ]


def _share(taken: np.ndarray) -> str:
    return f"{int(taken.sum()):,} of {len(taken):,}"


def read_ids(path: Path, name: str, column: Column) -> list[str]:
    """The images that the CSV at `path` names in `column`, called `name`.

    Raises UserError for a blank name, one that leaves the folder, and one that is there twice.
    """
    for value in column.values:
        if not value:
            raise UserError(f"{column.place(path, '')} names no image in column '{name}'.")
        if ".." in value and ".." in re.split(r"[/\\]", value):
            raise UserError(
                f"{column.place(path, value)} names the image '{value}', which leaves the image "
                "folder. Give paths without '..'."
            )
    repeated = [column.values[code] for code in np.flatnonzero(column.counts > 1)]
    if repeated:
        raise UserError(
            f"{path}: {len(repeated):,} image(s) are in column '{name}' more than once: "
            f"{some(repeated)}. Keep one row for each image."
        )
    cells: list[str] = column.cells.tolist()
    return cells


def _read_patients(path: Path, name: str, column: Column) -> np.ndarray:
    way_out = "pass --patient_column none, and the folds may share patients."
    for value in column.values:
        if not value:
            raise UserError(
                f"{column.place(path, '')} names no patient in column '{name}'. Fill it in, or "
                f"{way_out}"
            )
        if ROUNDED_NUMBER.fullmatch(value):
            raise UserError(
                f"{column.place(path, value)}, column '{name}' holds '{value}', a rounded number "
                "that merges many patients into one. Use a file that was not saved by a "
                f"spreadsheet, or {way_out}"
            )
    return column.cells


def _patients_from_paths(path: Path, ids: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """CheXpert has no patient column but names the patient in each path; and a note about it."""
    found = [PATIENT_IN_PATH.search(name) for name in ids]
    patients = [match.group(1) for match in found if match]
    if len(patients) == len(ids):
        return np.array(patients, dtype=object), (
            f"Patients are taken from the images' paths, such as '{patients[0]}' in {ids[0]}."
        )
    return None, (
        f"Warning: {path} has no known patient column, so that images of one patient may fall into "
        "two folds and inflate every number. Name it with --patient_column."
    )
