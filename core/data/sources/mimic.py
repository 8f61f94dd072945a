"""MIMIC-CXR-JPG: labels per study, joined with the image metadata and the official split.

Johnson et al., "MIMIC-CXR-JPG", 2019, https://physionet.org/content/mimic-cxr-jpg/:
`mimic-cxr-2.0.0-chexpert.csv.gz` or `-negbio.csv.gz`, `-metadata.csv.gz` and `-split.csv.gz`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv import columns as csv
from core.data.csv.columns import Column
from core.data.sources.source_table import CHEXPERT_LABELS, SourceTable, column
from core.errors import UserError, list_first, normalize_name

NEEDED = ("subject_id", "study_id", "No Finding")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has its columns, no image column, and its metadata table beside it."""
    if not csv.has_columns(columns, NEEDED) or csv.names_among(columns, csv.IMAGE_COLUMNS):
        return False
    return path.name.startswith("mimic-cxr") or bool(_glob_tables(path, "metadata"))


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read one row for each image of a labelled study; a blank label counts as absent.

    Raises UserError if the metadata table is not in the same folder, a study is repeated, or the
    tables disagree on the patient of a study or the study of an image.
    """
    studies = column(columns, "study_id", "mimic")
    for row in np.flatnonzero(pd.Series(studies.codes).duplicated())[:1].tolist():
        raise UserError(
            f"{path}: row {studies.row_at(row)} (the header is row 1) names study "
            f"'{studies.cells[row]}' a second time. Keep one row for each study."
        )
    metadata = _find_table(path, "metadata")
    if metadata is None:
        raise UserError(
            f"{path} has labels per study, and the table of their images is not beside it: put "
            f"{_usual_name(path, 'metadata')} there (--source mimic)."
        )
    images = csv.read_columns(metadata)
    rows = _match_rows(column(images, "study_id", "mimic"), studies)
    has_labels = rows >= 0
    if not has_labels.any():
        raise UserError(
            f"No image of {metadata} is in a study of {path}: use tables of one release."
        )
    notes = []
    if without := int((~has_labels).sum()):
        notes.append(
            f"{without:,} of {len(rows):,} images of {metadata.name} are left out: their studies "
            f"have no row in {path.name}."
        )
    rows = rows[has_labels]
    if alone := len(studies.codes) - len(np.unique(rows)):
        notes.append(
            f"{alone:,} of {len(studies.codes):,} studies of {path.name} have no image in "
            f"{metadata.name}."
        )
    selected = csv.take_rows(images, has_labels)
    labels = csv.names_among(columns, CHEXPERT_LABELS)
    wanted = {name: columns[name] for name in columns if name in labels or name not in images}
    image, study, patient = (
        column(selected, name, "mimic") for name in ("dicom_id", "study_id", "subject_id")
    )
    if "subject_id" in columns:
        _check_agreement(columns["subject_id"], patient, rows)
    test, why = _official_test(path, notes, image, study, patient)
    return SourceTable(
        path=path,
        columns=selected | csv.take_rows(wanted, rows),
        labels=labels,
        no_labels=tuple(images),
        image=("dicom_id",),
        patient=("subject_id",),
        study=("study_id",),
        view=("ViewPosition",),
        blank="zero",
        official_test=test,
        no_official_test=why,
        notes=tuple(notes),
    )


def read_studies(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read the labels with one row per study, for predictions by study.

    Raises UserError if a study is in two parts of the official split.
    """
    notes: list[str] = []
    test, why = _official_test(path, notes, column(columns, "study_id", "mimic"))
    return SourceTable(
        path=path,
        columns=columns,
        labels=csv.names_among(columns, CHEXPERT_LABELS),
        image=("study_id",),
        patient=("subject_id",),
        study=(),
        blank="zero",
        official_test=test,
        no_official_test=why,
        notes=tuple(notes),
    )


def _match_rows(wanted: Column, among: Column) -> np.ndarray:
    """First row of `among` with the text of each row of `wanted`, (N,); -1 if there is none."""
    first = np.unique(among.codes, return_index=True)[1]
    known = pd.Index(among.values).get_indexer(pd.Index(wanted.values))
    return np.where(known < 0, -1, first[known])[wanted.codes]


def _check_agreement(recorded: Column, images: Column, rows: np.ndarray) -> None:
    """Raise UserError if row `rows[i]` of `recorded` (-1: none) differs from row i of `images`."""
    theirs, ours = recorded.cells[rows], images.cells
    for row in np.flatnonzero((rows >= 0) & (ours != "") & (theirs != ours))[:1].tolist():
        raise UserError(
            f"{recorded.path}: row {recorded.row_at(int(rows[row]))} (the header is row 1) has "
            f"{recorded.name} '{theirs[row]}', but {images.path.name}, row {images.row_at(row)}, "
            f"has '{ours[row]}': use tables of one release."
        )


def _official_test(
    path: Path, notes: list[str], key: Column, *others: Column
) -> tuple[np.ndarray | None, str]:
    """Mask (N,) of the official test by the split table beside `path`, or None and the reason.

    `key` is the image or study of each row; `others` are columns that must agree with the split
    table. Adds to `notes`.
    """
    file = _find_table(path, "split")
    if file is None:
        return None, f"there is no {_usual_name(path, 'split')} beside it"
    columns = csv.read_columns(file)
    names, parts = column(columns, key.name, "mimic"), column(columns, "split", "mimic")
    pairs = [
        (recorded, c) for c in others if (recorded := csv.find_named(columns, c.name)) is not None
    ]
    # repeated rows must agree
    first = _match_rows(names, names)
    for held in (parts, *(recorded for recorded, _ in pairs)):
        _check_agreement(held, held, first)
    place = _match_rows(key, names)
    for recorded, column_of_images in pairs:
        _check_agreement(recorded, column_of_images, place)
    unknown = pd.unique(key.cells[place < 0]).tolist()
    if unknown:
        what = "image(s) are" if others else f"of {len(key.values):,} studies are"
        notes.append(
            f"Warning: {len(unknown):,} {what} not in {file.name} and count as training images: "
            f"{list_first(unknown)}."
        )
    return (place >= 0) & parts.each(lambda part: normalize_name(part) == "test")[place], ""


def _find_table(path: Path, what: str) -> Path | None:
    """Find the table of this kind beside `path`; prefers the same release if there are several."""
    found = _glob_tables(path, what)
    release = path.name.rpartition("-")[0]
    same = [file for file in found if file.name.startswith(f"{release}-{what}.")] or found
    if len({file.name.removesuffix(".gz") for file in same}) > 1:
        raise UserError(
            f"several tables are beside {path}: {list_first([file.name for file in same])}. Keep "
            "the one of its release only"
        )
    return same[0] if same else None


def _glob_tables(path: Path, what: str) -> list[Path]:
    folder = path.parent
    return sorted(file for end in ("", ".gz") for file in folder.glob(f"*-{what}.csv{end}"))


def _usual_name(path: Path, what: str) -> str:
    release, _, _ = path.name.rpartition("-")
    return f"{release or 'mimic-cxr-2.0.0'}-{what}.csv.gz"
