"""CSV and image folder → LabelTable: what is known about each image, checked once, in one place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from core.config.data import LabelReading
from core.data.csv.columns import IMAGE_COLUMNS, Column, find_column, take_rows
from core.data.csv.labels import add_absent, choose_labels, read_targets
from core.data.csv.views import of_views
from core.data.images.collection import Images
from core.data.images.find_files import match_images
from core.data.sources.sheet import Sheet
from core.data.tables.patients import FIELDS, ask_headers, find_patients, without_column
from core.errors import UserError, in_plain_sight, nearest, some

# what a spreadsheet runs
FORMULA = "=+-@"


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelTable:
    """N images with C labels. Texts are as in the CSV, so "00012" stays "00012"."""

    ids: list[str]
    images: Images
    """An existing file, or a row of a pack, for each; none where only the labels were read."""
    patients: np.ndarray | None = None
    """(N,) str"""
    studies: np.ndarray | None = None
    """(N,) str"""
    views: np.ndarray | None = None
    """(N,) str"""
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

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[places]

        return replace(
            self,
            ids=[self.ids[place] for place in places.tolist()],
            images=self.images.take(places) if len(self.images) else self.images,
            patients=of(self.patients),
            studies=of(self.studies),
            views=of(self.views),
            targets=self.targets[places],
            sources=of(self.sources),
        )


def table_of_sheet(
    sheet: Sheet, image_dir: Path | None, labels: Sequence[str] | None, reading: LabelReading
) -> LabelTable:
    """The images of a sheet that are wanted, their files and labels; as `read_table` says."""
    path, views = sheet.path, reading.views
    requests = [getattr(reading, f"{field}_column") for field in ("image", *FIELDS)]
    image, *others = found = _find_columns(path, sheet, requests)
    used = {name for name in found if name is not None}
    columns, notes = _take_images(path, sheet, others[-1], reading.official_split, views)
    columns, class_names, told = _choose_labels(path, sheet, columns, labels, used)
    notes += told
    ids = read_ids(path, image, columns[image])
    images = Images.of_files([]) if image_dir is None else match_images(ids, image_dir)
    asked = without_column(others, requests[1:])
    headers = ask_headers(images.paths, asked)
    if others[-1] is None and views != "all":
        wanted, told = _of_views(path, headers.get("view"), views)
        notes += told
        columns, headers = take_rows(columns, wanted), take_rows(headers, wanted)
        ids, images = list(compress(ids, wanted)), images.take(wanted)
    blank, told = _meaning_of_blank(sheet, reading.blank)
    targets, doubts = read_targets(path, columns, class_names, reading.uncertain, blank)
    notes += told + doubts + _unused(path, columns, used.union(class_names, sheet.no_labels))
    patients, told = find_patients(path, columns, others[0], asked, headers, ids, images.paths)
    studies, positions = (
        headers.get(field) if name is None else columns[name]
        for field, name in zip(FIELDS[1:], others[1:], strict=True)
    )
    return LabelTable(
        ids=ids,
        images=images,
        patients=patients,
        studies=None if studies is None else studies.cells,
        views=None if positions is None else positions.cells,
        targets=targets,
        class_names=class_names,
        notes=tuple(map(in_plain_sight, (*notes, *told, *_formulas(path, ids, class_names)))),
        id_column=image,
    )


def _meaning_of_blank(sheet: Sheet, given: str | None) -> tuple[str | None, list[str]]:
    """What a blank label means: as `given`, else as is usual in the source; and a sentence."""
    usual = sheet.blank
    if usual is None or given == usual:
        return given, []
    if given is None:
        return usual, [f"A blank label of {sheet.path} means {usual}, as is usual there (--blank)."]
    return given, [
        f"Warning: a blank label of {sheet.path} means {given}, as --blank says, and not {usual} "
        "as is usual there."
    ]


def _find_columns(
    path: Path, sheet: Sheet, requests: Sequence[str]
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
            ". Name it with --image_column."
        )
    return image, patient, study, view


def _choose_labels(
    path: Path,
    sheet: Sheet,
    columns: dict[str, Column],
    labels: Sequence[str] | None,
    used: set[str],
) -> tuple[dict[str, Column], tuple[str, ...], list[str]]:
    """The columns with those of all labels, the labels, and sentences about them."""
    wished = (sheet.labels or None) if labels is None else labels
    notes: list[str] = []
    if wished is not None and sheet.lists:
        columns, notes = add_absent(path, columns, wished, sheet.labels or ())
    no_labels = used if wished is not None else used.union(sheet.no_labels)
    class_names, told = choose_labels(path, columns, no_labels, wished)
    notes += told
    if labels is None:
        notes.append(f"Labels ({len(class_names)}, found in {path}): {', '.join(class_names)}.")
    return columns, class_names, notes


def _take_images(
    path: Path, sheet: Sheet, view: str | None, official_split: str, views: str
) -> tuple[dict[str, Column], list[str]]:
    """The rows that are wanted of a sheet, and its sentences with those about what is left out."""
    columns, notes = sheet.columns, list(sheet.notes)
    in_split, told = _of_split(path, sheet, official_split)
    notes += told
    if in_split is not None:
        columns = take_rows(columns, in_split)
    if view is not None and views != "all":
        wanted, note = _of_views(path, columns[view], views)
        notes += note
        columns = take_rows(columns, wanted)
    return columns, notes


def _of_views(path: Path, column: Column | None, views: str) -> tuple[np.ndarray, list[str]]:
    """Whether each image is of the wanted views, (N,) bool, and a sentence where some are not."""
    wanted = of_views(path, column, views)
    if wanted.all():
        return wanted, []
    return wanted, [
        f"Of {path} {_share(wanted)} images are {views} views; the others are left out."
    ]


def _unused(path: Path, columns: dict[str, Column], used: set[str]) -> list[str]:
    """A sentence about the columns that are of no use; a line's trailing comma makes none."""
    ignored = [
        name or "(unnamed)"
        for name, column in columns.items()
        if name not in used and (name or any(column.values))
    ]
    return [f"Columns of {path} that are not used: {', '.join(ignored)}."] if ignored else []


def _formulas(path: Path, ids: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """A sentence where names look like formulas: they are written as they are, to be found."""
    found = [name for name in (*class_names, *ids) if name and name[0] in FORMULA]
    if not found:
        return []
    return [
        f"Warning: {len(found):,} image(s) or label(s) of {path} begin as formulas do "
        f"({some([name[:60] for name in found])}): do not open files with these names in a "
        "spreadsheet, unless as text."
    ]


def _of_split(path: Path, sheet: Sheet, wanted: str) -> tuple[np.ndarray | None, list[str]]:
    """Whether each image is in the part of the official split, (N,) bool; None where all are."""
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

    Raises UserError for a blank name, one that leaves the folder or that no CSV would hold, and one
    that is there twice.
    """
    if "" in column.values:
        raise UserError(f"{column.place(path, '')} names no image in column '{name}'.")
    for value in (value for value in column.values if "\r" in value or ".." in value):
        if "\r" in value:
            raise UserError(
                f"{column.place(path, value)} names the image '{value}', with a carriage return, "
                "by which a CSV that is written would be torn: rename it."
            )
        if ".." in re.split(r"[/\\]", value):
            raise UserError(
                f"{column.place(path, value)} names the image '{value}', which leaves the image "
                "folder. Give paths without '..'."
            )
    again = np.flatnonzero(column.counts > 1)
    if len(again):
        row = column.row_at(int(np.flatnonzero(column.codes == again[0])[1]))
        raise UserError(
            f"{column.path or path}: {len(again):,} image(s) are in column '{name}' more than "
            f"once: {some([column.values[code] for code in again])} (again in row {row}; the "
            "header is row 1). Keep one row for each image."
        )
    cells: list[str] = column.cells.tolist()
    return cells
