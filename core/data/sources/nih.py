"""NIH ChestX-ray14: labels in one cell, "Mass|Nodule", and lists of the official test beside it.

Wang et al., "ChestX-ray8", CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC:
`Data_Entry_2017_v2020.csv`, `train_val_list.txt` and `test_list.txt`.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column, is_known_non_label, take_rows
from core.data.csv.label_values import is_missing
from core.data.csv.labels import is_label
from core.data.sources.sheet import Sheet, column, drop_namesakes, indicators, one_spelling
from core.errors import UserError, plain, some

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "No Finding", "Nodule"),
    *("Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
NEEDED = ("Image Index", "Finding Labels", "Patient ID")
# The header writes two pairs in brackets, so that a CSV has a column 'OriginalImage[Width'.
OTHERS = (
    *("Follow-up #", "Patient Age", "Patient Gender", "Patient Sex", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", "Unnamed: 11"),
)
TEST_LIST, TRAIN_LIST = "test_list.txt", "train_val_list.txt"


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are its columns; a table with columns of labels too is a plain one.

    A single column of 1 and 0 may be anything, if it is not called as one of its labels.
    """
    if not {plain(name) for name in NEEDED} <= {plain(name) for name in columns}:
        return False
    own, found = {plain(name) for name in (*NEEDED, *OTHERS)}, set(map(plain, LABELS))
    labels = {
        plain(name)
        for name, c in columns.items()
        if plain(name) not in own and not is_known_non_label(name) and is_label(c)
        # words such as yes are about the file or the patient as often as about a finding
        if plain(name) in found or not any(text.isalpha() for text in c.values)
    }
    return len(labels) < 2 and not labels & found


def read(path: Path, columns: dict[str, Column]) -> Sheet:
    """Its table, with the 15 labels (one of them No Finding) and whatever others it names.

    Left out, and counted, are images whose cell is blank or a word for a missing value. Raises
    UserError for another cell that names no label, and for lists that share an image.
    """
    findings = column(path, columns, "Finding Labels", "nih")
    labels = one_spelling([_parse(path, findings, cell) for cell in findings.values], LABELS)
    known = np.array([bool(cell) for cell in labels])
    kept = known[findings.codes]
    if not kept.any():
        raise UserError(f"{path} has no image with a label in column 'Finding Labels'.")
    columns, told = drop_namesakes(path, "Finding Labels", labels, columns, (*NEEDED, *OTHERS))
    found = indicators(findings, labels, LABELS)
    every = columns | found
    if not kept.all():
        every = take_rows(every, kept)
        told.append(
            f"{int((~kept).sum()):,} of {len(kept):,} images of {path} are left out: they have no "
            "label in column 'Finding Labels'."
        )
    test, why, notes = _official_test(path, column(path, every, "Image Index", "nih"))
    return Sheet(
        path=path,
        columns=every,
        labels=tuple(found),
        no_labels=tuple(name for name in columns if plain(name) in map(plain, (*NEEDED, *OTHERS))),
        image=("Image Index",),
        patient=("Patient ID",),
        study=(),
        view=("View Position",),
        lists=True,
        official_test=test,
        no_official_test=why,
        notes=(*told, *notes),
    )


def _parse(path: Path, findings: Column, cell: str) -> list[str]:
    """The labels of a cell such as "Mass|Nodule"; none of a missing one."""
    parts = [part.strip() for part in cell.split("|")]
    if cell and not any(parts):
        raise UserError(
            f"{findings.place(path, cell)} names no label in column 'Finding Labels'; an image "
            "without a finding has 'No Finding' there."
        )
    return [part for part in parts if not is_missing(part)]


def _official_test(path: Path, images: Column) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """(N,) bool by the lists beside the table, or None and why; and sentences."""
    lists = {name: path.with_name(name) for name in (TEST_LIST, TRAIN_LIST)}
    named = {name: _read_list(file) for name, file in lists.items() if file.is_file()}
    if TEST_LIST not in named:
        return None, f"there is no {TEST_LIST} beside it", ()
    stems = pd.Index([_stem(name) for name in images.values])
    test = np.asarray(stems.isin(named[TEST_LIST]))
    notes = [
        f"Warning: {lists[name]} names no image of {path}: do they belong together?"
        for name, stems_of_list in named.items()
        if not stems.isin(stems_of_list).any()
    ]
    if TRAIN_LIST in named:
        both = sorted(set(named[TEST_LIST]) & set(named[TRAIN_LIST]))
        if both:
            raise UserError(
                f"{len(both):,} image(s) are in {lists[TEST_LIST]} and in {lists[TRAIN_LIST]}: "
                f"{some(both)}. Fetch the lists again."
            )
        neither = int((~test & ~np.asarray(stems.isin(named[TRAIN_LIST])))[images.codes].sum())
        if neither:
            notes.append(
                f"Warning: {neither:,} image(s) of {path} are in neither {TEST_LIST} nor "
                f"{TRAIN_LIST} and count as training images."
            )
    return test[images.codes], "", tuple(notes)


def _stem(name: str) -> str:
    """An image's name without what a copy of the dataset changes: folders, case and ending."""
    return os.path.splitext(re.split(r"[/\\]", name)[-1].casefold())[0]


def _read_list(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a list of images: {error}.") from error
    return [_stem(line) for line in lines]
