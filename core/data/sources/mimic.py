"""MIMIC-CXR-JPG: labels of studies, joined with the tables of the images and of the split.

Johnson et al., "MIMIC-CXR-JPG", 2019, https://physionet.org/content/mimic-cxr-jpg/:
`mimic-cxr-2.0.0-chexpert.csv.gz` or `-negbio.csv.gz`, `-metadata.csv.gz` and `-split.csv.gz`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import IMAGE_COLUMNS, Column, read_columns, take_rows
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
    tables do not agree on a study's patient or an image's study.
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
    of_image = ("dicom_id", "study_id", "subject_id")
    told = {name: column(metadata, kept, name, "mimic") for name in of_image}
    test, why, notes = _official_test(path, metadata, told)
    return Sheet(
        path=path,
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


def read_studies(path: Path, columns: dict[str, Column]) -> Sheet:
    """Its labels as they are, one row a study, for predictions by study.

    Raises UserError where a study is in two parts of the official split.
    """
    studies = {"study_id": column(path, columns, "study_id", "mimic")}
    test, why, notes = _official_test(path, path, studies)
    return Sheet(
        path=path,
        columns=columns,
        labels=tuple(name for name in columns if plain(name) in map(plain, CHEXPERT_LABELS)),
        image=("study_id",),
        patient=("subject_id",),
        study=(),
        blank="zero",
        official_test=test,
        no_official_test=why,
        notes=notes,
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


def _official_test(
    path: Path, table: Path, told: dict[str, Column]
) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """(N,) bool by the split table beside `path`, or None and why; and sentences.

    told: what `table` says of N rows; the first of it is what the split is taken by. Raises
    UserError where the split table gives one of these two parts, or contradicts the others.
    """
    file = _find(path, "split")
    if file is None:
        return None, f"there is no {_usual(path, 'split')} beside it", ()
    columns = read_columns(file)
    key, *others = told
    names, rows = column(file, columns, key, "mimic"), told[key]
    row_of_code = np.unique(names.codes, return_index=True)[1]
    parts = column(file, columns, "split", "mimic")
    again = row_of_code[names.codes]
    said = {name: c for n, c in columns.items() for name in others if plain(n) == plain(name)}
    for name, held in {"split": parts, **said}.items():
        for row in np.flatnonzero(held.codes != held.codes[again])[:1].tolist():
            raise UserError(
                f"{file}: row {held.row_at(row)} (the header is row 1) gives {key} "
                f"'{names.values[names.codes[row]]}' the {name} "
                f"'{held.values[held.codes[row]]}', and row {held.row_at(int(again[row]))} "
                f"'{held.values[held.codes[again[row]]]}': fetch it again."
            )
    known = pd.Index(names.values).get_indexer(pd.Index(rows.values))
    place = np.where(known < 0, -1, row_of_code[known])[rows.codes]  # (N,)
    for name, held in said.items():
        _check_same(file, held, place, table, told[name], name)
    is_test = np.array([plain(part) == "test" for part in parts.values])[parts.codes]
    unknown = [rows.values[code] for code in np.flatnonzero(known < 0).tolist()]
    notes: tuple[str, ...] = ()
    if unknown:
        what = "image(s) are" if key == "dicom_id" else f"of {len(rows.values):,} studies are"
        notes = (
            f"Warning: {len(unknown):,} {what} not in {file.name} and count as training images: "
            f"{some(unknown)}.",
        )
    return (place >= 0) & is_test[place], "", notes


def _check_same(
    file: Path, said: Column, place: np.ndarray, table: Path, told: Column, name: str
) -> None:
    """Refuse a split table that says otherwise of an image than the table of the images.

    place: (N,) the row of `said` for each row of `told`, or -1.
    """
    same = pd.Index(told.values).get_indexer(pd.Index(said.values))[said.codes][place]
    is_blank = np.array([not value for value in told.values])[told.codes]
    wrong = np.flatnonzero((place >= 0) & (same != told.codes) & ~is_blank)
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{file}: row {said.row_at(int(place[row]))} (the header is row 1) gives its image the "
            f"{name} '{said.values[said.codes[place[row]]]}', and {table.name}, row "
            f"{told.row_at(row)}, '{told.values[told.codes[row]]}': give tables of one release."
        )


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
