"""PadChest with its labels as a list in a cell; and CXR-LT 2026, which labels the same images.

Bustos et al., "PadChest", Medical Image Analysis 2020,
https://bimcv.cipf.es/bimcv-projects/padchest/:
`PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz`; CXR-LT 2026 has one column a label after
`ImageID, StudyDate_DICOM, PatientID`.
"""

import re
from pathlib import Path

import numpy as np

from core.data.csv.columns import Column, find_named, has_columns, names_among, take_rows
from core.data.csv.label_values import is_missing
from core.data.sources.source_table import SourceTable, column, expand_lists, one_spelling
from core.errors import UserError, normalize_name

NEEDED = ("ImageID", "PatientID", "Projection", "Labels")
CHALLENGE = ("ImageID", "StudyDate_DICOM", "PatientID")
# Neither part can begin where the other does, so that hostile text takes linear time.
ITEM = r"'[^'\\]*'" + r'|"[^"\\]*"'
LIST = re.compile(rf"\[\s*(?:(?:{ITEM})(?:\s*,\s*(?:{ITEM}))*\s*)?\]")
EXCLUDE = "exclude"


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are the columns of PadChest or of CXR-LT 2026."""
    lists = find_named(columns, "Labels")
    if lists is None:
        return has_columns(columns, CHALLENGE)
    return has_columns(columns, NEEDED) and any(cell.startswith("[") for cell in lists.values)


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """One column for each label of the lists; without lists the table as it is.

    Left out, and counted, are images whose labels or projection are 'exclude', and those without a
    label (an empty list, a blank, nan), of which nothing is known. Raises UserError for another
    cell that is no list.
    """
    if find_named(columns, "Labels") is None:
        column(columns, "ImageID", "padchest")
        return SourceTable(
            path=path,
            columns=columns,
            no_labels=names_among(columns, ("StudyDate_DICOM",)),
            image=("ImageID",),
            patient=("PatientID",),
        )
    lists = column(columns, "Labels", "padchest")
    labels = one_spelling([_parse(lists, cell) for cell in lists.values], (EXCLUDE,))
    columns, found, notes = expand_lists(columns, lists, labels, (), (*NEEDED, "StudyID"))
    excluded = np.array([EXCLUDE in cell for cell in labels])[lists.codes]
    if (views := find_named(columns, "Projection")) is not None:
        excluded |= views.each(lambda view: normalize_name(view) == EXCLUDE)
    empty = np.array([not cell for cell in labels])[lists.codes] & ~excluded
    kept = ~(excluded | empty)
    if not kept.any():
        raise UserError(f"{path} has no image with a label that is not excluded.")
    found = {name: c for name, c in take_rows(found, kept).items() if "1" in c.values}
    if not kept.all():
        notes.append(
            f"{int((~kept).sum()):,} of {len(kept):,} images of {path} are left out: labels or "
            f"projection of {int(excluded.sum()):,} say 'exclude', and {int(empty.sum()):,} have "
            "no label."
        )
    return SourceTable(
        path=path,
        columns=take_rows(columns, kept) | found,
        labels=tuple(found),
        no_labels=tuple(columns),
        image=("ImageID",),
        patient=("PatientID",),
        study=("StudyID",),
        view=("Projection",),
        lists=True,
        notes=tuple(notes),
    )


def _parse(lists: Column, cell: str) -> list[str]:
    """The labels of a cell such as "['nodule', 'pleural effusion']"; none of a missing one."""
    if is_missing(cell):
        return []
    if not LIST.fullmatch(cell):
        raise UserError(
            f"{lists.cell(cell)}, which is no list such as ['nodule', 'pleural effusion']."
        )
    texts = (" ".join(item[1:-1].split()) for item in re.findall(ITEM, cell))
    return [text for text in texts if text]
