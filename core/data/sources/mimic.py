"""MIMIC-CXR-JPG: labels of studies, joined with the tables of the images and of the split.

Johnson et al., "MIMIC-CXR-JPG", 2019, https://physionet.org/content/mimic-cxr-jpg/:
`mimic-cxr-2.0.0-chexpert.csv.gz` or `-negbio.csv.gz`, `-metadata.csv.gz` and `-split.csv.gz`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.columns import IMAGE_COLUMNS, Column, read_columns, take_rows
from core.data.sources.sheet import CHEXPERT_LABELS, Sheet, column
from core.errors import UserError, plain, some

NEEDED = ("subject_id", "study_id", "No Finding")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are its columns, without an image's, and the images' table is beside it.

    A table of labels by study is a plain one elsewhere.
    """
    names = {plain(name) for name in columns}
    if not {plain(name) for name in NEEDED} <= names or names & set(map(plain, IMAGE_COLUMNS)):
        return False
    return path.name.startswith("mimic-cxr") or bool(_beside(path, "metadata"))


def read(path: Path, columns: dict[str, Column]) -> Sheet:
    """One row for each image of a study with labels; a blank label counts as absent.

    Raises UserError where the table of the images is not beside it, a study is there twice, or the
    tables do not agree on a study's patient.
    """
    studies = column(path, columns, "study_id", "mimic")
    repeated = np.flatnonzero(studies.counts > 1)
    if len(repeated):
        value = studies.values[repeated[0]]
        row = studies.row_at(int(np.flatnonzero(studies.codes == repeated[0])[1]))
        raise UserError(
            f"{path}: row {row} (the header is row 1) names study '{value}' a second time. "
            "Keep one row for each study."
        )
    metadata = _find(path, "metadata")
    if metadata is None:
        raise UserError(
            f"{path} holds labels of studies, and the table of their images, such as "
            f"{_usual(path, 'metadata')}, is not beside it: put it there (--source mimic)."
        )
    images = {name: replace(c, path=metadata) for name, c in read_columns(metadata).items()}
    of_images = column(metadata, images, "study_id", "mimic")
    row_of_code = np.empty(len(studies.values), dtype=np.int64)
    row_of_code[studies.codes] = np.arange(len(studies.codes))
    known = pd.Index(studies.values).get_indexer(pd.Index(of_images.values))
    rows = np.where(known < 0, -1, row_of_code[known])[of_images.codes]
    if not (rows >= 0).any():
        raise UserError(
            f"No image of {metadata} is of a study of {path} (study {studies.values[0]}, for one): "
            "give tables of one release."
        )
    kept = take_rows(images, rows >= 0)
    labels = [name for name in columns if plain(name) in map(plain, CHEXPERT_LABELS)]
    wanted = {name: columns[name] for name in columns if name in labels or name not in images}
    joined = kept | take_rows(wanted, rows[rows >= 0])
    _check_patients(path, columns, metadata, kept, rows[rows >= 0])
    test, why, notes = _official_test(path, column(metadata, kept, "dicom_id", "mimic"))
    return Sheet(
        columns=joined,
        labels=tuple(labels),
        no_labels=tuple(images),
        image=("dicom_id",),
        patient=("subject_id",),
        study=("study_id",),
        view=("ViewPosition",),
        blank="zero",
        official_test=test,
        no_official_test=why,
        notes=(*_left_out(path, metadata, rows, len(studies.codes)), *notes),
    )


def _left_out(path: Path, metadata: Path, rows: np.ndarray, studies: int) -> list[str]:
    notes = []
    if without := int((rows < 0).sum()):
        notes.append(
            f"{without:,} of {len(rows):,} images of {metadata.name} are left out: their studies "
            f"have no row in {path.name}."
        )
    if alone := studies - len(np.unique(rows[rows >= 0])):
        notes.append(
            f"{alone:,} of {studies:,} studies of {path.name} have no image in {metadata.name}."
        )
    return notes


def _check_patients(
    path: Path,
    columns: dict[str, Column],
    metadata: Path,
    images: dict[str, Column],
    rows: np.ndarray,
) -> None:
    """Refuse tables that give one study to two patients."""
    if "subject_id" not in columns:
        return
    told = columns["subject_id"]
    patients = column(metadata, images, "subject_id", "mimic")
    same = pd.Index(patients.values).get_indexer(pd.Index(told.values))[told.codes[rows]]
    wrong = np.flatnonzero(same != patients.codes)
    if len(wrong):
        place = int(wrong[0])
        raise UserError(
            f"{path}: row {told.row_at(int(rows[place]))} (the header is row 1) gives its study to "
            f"patient {told.values[told.codes[rows[place]]]}, and {metadata.name}, row "
            f"{patients.row_at(place)}, to {patients.values[patients.codes[place]]}: give tables "
            "of one release."
        )


def _official_test(path: Path, images: Column) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """(N,) bool by the split table beside `path`, or None and why; and sentences."""
    table = _find(path, "split")
    if table is None:
        return None, f"there is no {_usual(path, 'split')} beside it", ()
    columns = read_columns(table)
    names = column(table, columns, "dicom_id", "mimic")
    parts = column(table, columns, "split", "mimic")
    part_of_code = np.empty(len(names.values), dtype=np.int64)
    part_of_code[names.codes] = parts.codes
    known = pd.Index(names.values).get_indexer(pd.Index(images.values))
    is_test = np.array([plain(part) == "test" for part in parts.values])
    test = np.where(known < 0, False, is_test[part_of_code[known]])
    unknown = [images.values[code] for code in np.flatnonzero(known < 0).tolist()]
    notes: tuple[str, ...] = ()
    if unknown:
        notes = (
            f"Warning: {len(unknown):,} image(s) are not in {table.name} and count as training "
            f"images: {some(unknown)}.",
        )
    return test[images.codes], "", notes


def _find(path: Path, what: str) -> Path | None:
    """The table of this kind beside `path`; that of the same release where there are several."""
    found = _beside(path, what)
    release = path.name.rpartition("-")[0]
    same = [file for file in found if file.name.startswith(f"{release}-{what}.")] or found
    if len({file.name.removesuffix(".gz") for file in same}) > 1:
        raise UserError(
            f"Which of {some([file.name for file in same])} belongs to {path}? Leave one of them "
            "beside it."
        )
    return same[0] if same else None


def _beside(path: Path, what: str) -> list[Path]:
    folder = path.parent
    return sorted(file for end in ("", ".gz") for file in folder.glob(f"*-{what}.csv{end}"))


def _usual(path: Path, what: str) -> str:
    release, _, _ = path.name.rpartition("-")
    return f"{release or 'mimic-cxr-2.0.0'}-{what}.csv.gz"
