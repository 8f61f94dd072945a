"""MIMIC-CXR-JPG: labels of studies, joined with the tables of the images and of the split.

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
    """Whether these are its columns, without an image's, and the images' table is beside it."""
    if not csv.has_columns(columns, NEEDED) or csv.names_among(columns, csv.IMAGE_COLUMNS):
        return False
    return path.name.startswith("mimic-cxr") or bool(_beside(path, "metadata"))


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """One row for each image of a study with labels; a blank label counts as absent.

    Raises UserError where the table of the images is not beside it, a study is there twice, or the
    tables do not agree on a study's patient or an image's study.
    """
    studies = column(columns, "study_id", "mimic")
    for row in np.flatnonzero(pd.Series(studies.codes).duplicated())[:1].tolist():
        raise UserError(
            f"{path}: row {studies.row_at(row)} (the header is row 1) names study "
            f"'{studies.cells[row]}' a second time. Keep one row for each study."
        )
    metadata = _find(path, "metadata")
    if metadata is None:
        raise UserError(
            f"{path} holds labels of studies, and the table of their images, such as "
            f"{_usual(path, 'metadata')}, is not beside it: put it there (--source mimic)."
        )
    images = csv.read_columns(metadata)
    rows = _rows_of(column(images, "study_id", "mimic"), studies)
    has_labels = rows >= 0
    if not has_labels.any():
        raise UserError(f"No image of {metadata} is of a study of {path}: are they of one release?")
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
    kept = csv.take_rows(images, has_labels)
    labels = csv.names_among(columns, CHEXPERT_LABELS)
    wanted = {name: columns[name] for name in columns if name in labels or name not in images}
    image, study, patient = (
        column(kept, name, "mimic") for name in ("dicom_id", "study_id", "subject_id")
    )
    if "subject_id" in columns:
        _refuse_differing(columns["subject_id"], patient, rows)
    test, why = _official_test(path, notes, image, study, patient)
    return SourceTable(
        path=path,
        columns=kept | csv.take_rows(wanted, rows),
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
    """Its labels as they are, one row a study, for predictions by study.

    Raises UserError where a study is in two parts of the official split.
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


def _rows_of(wanted: Column, among: Column) -> np.ndarray:
    """The first row of `among` with the text of each row of `wanted`, (N,); -1 where none has."""
    first = np.unique(among.codes, return_index=True)[1]
    known = pd.Index(among.values).get_indexer(pd.Index(wanted.values))
    return np.where(known < 0, -1, first[known])[wanted.codes]


def _refuse_differing(said: Column, images: Column, rows: np.ndarray) -> None:
    """Refuse another text in row `rows[i]` of `said` (-1: none) than in row i of `images`."""
    theirs, ours = said.cells[rows], images.cells
    for row in np.flatnonzero((rows >= 0) & (ours != "") & (theirs != ours))[:1].tolist():
        raise UserError(
            f"{said.path}: row {said.row_at(int(rows[row]))} (the header is row 1) says "
            f"{said.name} '{theirs[row]}', and {images.path.name}, row {images.row_at(row)}, "
            f"'{ours[row]}': give tables of one release."
        )


def _official_test(
    path: Path, notes: list[str], key: Column, *others: Column
) -> tuple[np.ndarray | None, str]:
    """(N,) bool by the split table beside `path`, or None and why; adds to `notes`.

    `key` names the image or study of each row, of which the table gives one part, as the `others`.
    """
    file = _find(path, "split")
    if file is None:
        return None, f"there is no {_usual(path, 'split')} beside it"
    columns = csv.read_columns(file)
    names, parts = column(columns, key.name, "mimic"), column(columns, "split", "mimic")
    pairs = [(said, c) for c in others if (said := csv.find_named(columns, c.name)) is not None]
    # the same again says nothing new
    first = _rows_of(names, names)
    for held in (parts, *(said for said, _ in pairs)):
        _refuse_differing(held, held, first)
    place = _rows_of(key, names)
    for said, column_of_images in pairs:
        _refuse_differing(said, column_of_images, place)
    unknown = pd.unique(key.cells[place < 0]).tolist()
    if unknown:
        what = "image(s) are" if others else f"of {len(key.values):,} studies are"
        notes.append(
            f"Warning: {len(unknown):,} {what} not in {file.name} and count as training images: "
            f"{list_first(unknown)}."
        )
    return (place >= 0) & parts.each(lambda part: normalize_name(part) == "test")[place], ""


def _find(path: Path, what: str) -> Path | None:
    """The table of this kind beside `path`; that of the same release where there are several."""
    found = _beside(path, what)
    release = path.name.rpartition("-")[0]
    same = [file for file in found if file.name.startswith(f"{release}-{what}.")] or found
    if len({file.name.removesuffix(".gz") for file in same}) > 1:
        raise UserError(
            f"Which of {list_first([file.name for file in same])} belongs to {path}? Leave one "
            "beside it"
        )
    return same[0] if same else None


def _beside(path: Path, what: str) -> list[Path]:
    folder = path.parent
    return sorted(file for end in ("", ".gz") for file in folder.glob(f"*-{what}.csv{end}"))


def _usual(path: Path, what: str) -> str:
    release, _, _ = path.name.rpartition("-")
    return f"{release or 'mimic-cxr-2.0.0'}-{what}.csv.gz"
