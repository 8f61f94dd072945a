"""NIH ChestX-ray14: lists of labels ("Mass|Nodule") and text files of the official split.

Wang et al., "ChestX-ray8", CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC:
`Data_Entry_2017_v2020.csv`, `train_val_list.txt` and `test_list.txt`.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column, has_columns, names_among, take_rows
from core.data.csv.label_values import is_missing
from core.data.csv.labels import is_label
from core.data.csv.non_labels import is_known_non_label
from core.data.sources.source_table import SourceTable, column, expand_lists, unify_spelling
from core.errors import UserError, list_first

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "No Finding", "Nodule"),
    *("Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
NEEDED = ("Image Index", "Finding Labels", "Patient ID")
# the header has commas inside of brackets: "OriginalImage[Width,Height]"
OTHERS = (
    *("Follow-up #", "Patient Age", "Patient Gender", "Patient Sex", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", "Unnamed: 11"),
)
TEST_LIST, TRAIN_LIST = "test_list.txt", "train_val_list.txt"


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has its columns, and no label columns of 1 and 0 (a plain table has them).

    One column of 1 and 0 with another name than NIH's labels is accepted.
    """
    if not has_columns(columns, NEEDED):
        return False
    own, found = set(names_among(columns, (*NEEDED, *OTHERS))), set(names_among(columns, LABELS))
    labels = {
        name
        for name, c in columns.items()
        if name not in own and not is_known_non_label(name) and is_label(c)
        # words like "yes" often describe the file or the patient
        if name in found or not any(text.isalpha() for text in c.values)
    }
    return len(labels) < 2 and not labels & found


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read the table, with the 15 labels (including No Finding) and any others in the lists.

    Images with a blank or missing label cell are left out and counted. Raises UserError for a cell
    with separators only, and for an image in both lists of the official split.
    """
    findings = column(columns, "Finding Labels", "nih")
    labels = unify_spelling([_parse(findings, cell) for cell in findings.values], LABELS)
    has_label = np.array([bool(cell) for cell in labels])[findings.codes]
    if not has_label.any():
        raise UserError(f"{path} has no image with a label in column 'Finding Labels'.")
    columns, found, notes = expand_lists(columns, findings, labels, LABELS, (*NEEDED, *OTHERS))
    every = columns | found
    if not has_label.all():
        every = take_rows(every, has_label)
        notes.append(
            f"{int((~has_label).sum()):,} of {len(has_label):,} images of {path} are left out: no "
            "label in column 'Finding Labels'."
        )
    test, why = _official_test(path, column(every, "Image Index", "nih"), notes)
    return SourceTable(
        path=path,
        columns=every,
        labels=tuple(found),
        no_labels=names_among(columns, (*NEEDED, *OTHERS)),
        image=("Image Index",),
        patient=("Patient ID",),
        study=(),
        view=("View Position",),
        lists=True,
        official_test=test,
        no_official_test=why,
        notes=tuple(notes),
    )


def _parse(findings: Column, cell: str) -> list[str]:
    """Labels of a cell like "Mass|Nodule"; none if it is missing."""
    parts = [part.strip() for part in cell.split("|")]
    if cell and not any(parts):
        raise UserError(
            f"{findings.place(cell)} has no label in column 'Finding Labels'; write 'No Finding' "
            "for an image without a finding."
        )
    return [part for part in parts if not is_missing(part)]


def _official_test(path: Path, images: Column, notes: list[str]) -> tuple[np.ndarray | None, str]:
    """Mask (N,) of the official test by the lists beside the table, or None and the reason.

    Adds to `notes`.
    """
    lists = {name: path.with_name(name) for name in (TEST_LIST, TRAIN_LIST)}
    named = {name: _read_list(file) for name, file in lists.items() if file.is_file()}
    if TEST_LIST not in named:
        return None, f"there is no {TEST_LIST} beside it"
    stems = pd.Index(map(_stem, images.values))
    is_in = {name: stems.isin(listed)[images.codes] for name, listed in named.items()}  # (N,)
    notes += [
        f"Warning: {lists[name]} has no image of {path}: check that they belong together."
        for name in named
        if not is_in[name].any()
    ]
    if TRAIN_LIST in named:
        if both := sorted(set(named[TEST_LIST]) & set(named[TRAIN_LIST])):
            raise UserError(
                f"{len(both):,} image(s) are in {lists[TEST_LIST]} and in {lists[TRAIN_LIST]}: "
                f"{list_first(both)}. Download the lists again."
            )
        if neither := int((~is_in[TEST_LIST] & ~is_in[TRAIN_LIST]).sum()):
            notes.append(
                f"Warning: {neither:,} image(s) of {path} are in neither {TEST_LIST} nor "
                f"{TRAIN_LIST} and count as training images."
            )
    return is_in[TEST_LIST], ""


def _stem(name: str) -> str:
    """Image name without folders, case and file extension, which differ between copies."""
    return os.path.splitext(re.split(r"[/\\]", name)[-1].casefold())[0]


def _read_list(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a list of images: {error}.") from error
    return [_stem(line) for line in lines]
