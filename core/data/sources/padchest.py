"""PadChest (lists of labels), and CXR-LT 2026 (label columns for the same images).

Bustos et al., "PadChest", Medical Image Analysis 2020,
https://bimcv.cipf.es/bimcv-projects/padchest/:
`PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz`; CXR-LT 2026 has one column per label
after `ImageID, StudyDate_DICOM, PatientID`.
"""

import re
from pathlib import Path

import numpy as np

from core.data.csv.columns import Column, find_named, has_columns, names_among, take_rows
from core.data.csv.label_values import is_missing
from core.data.sources.source_table import SourceTable, column, expand_lists, unify_spelling
from core.errors import UserError, normalize_name

NEEDED = ("ImageID", "PatientID", "Projection", "Labels")
CHALLENGE = ("ImageID", "StudyDate_DICOM", "PatientID")
# the alternatives have different first characters, so hostile text takes linear time
ITEM = r"'[^'\\]*'" + r'|"[^"\\]*"'
LIST = re.compile(rf"\[\s*(?:(?:{ITEM})(?:\s*,\s*(?:{ITEM}))*\s*)?\]")
EXCLUDE = "exclude"


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has the columns of PadChest or CXR-LT 2026."""
    lists = find_named(columns, "Labels")
    if lists is None:
        return has_columns(columns, CHALLENGE)
    return has_columns(columns, NEEDED) and any(cell.startswith("[") for cell in lists.values)


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read one column for each label of the lists; a table without lists is unchanged.

    Images with label or projection 'exclude', and images without a label (an empty list, blank,
    nan), are left out and counted. Raises UserError for any other cell that is not a list.
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
    labels = unify_spelling([_parse(lists, cell) for cell in lists.values], (EXCLUDE,))
    columns, found, notes = expand_lists(columns, lists, labels, (), (*NEEDED, "StudyID"))
    excluded = np.array([EXCLUDE in cell for cell in labels])[lists.codes]
    if (views := find_named(columns, "Projection")) is not None:
        excluded |= views.each(lambda view: normalize_name(view) == EXCLUDE)
    empty = np.array([not cell for cell in labels])[lists.codes] & ~excluded
    is_used = ~(excluded | empty)
    if not is_used.any():
        raise UserError(f"{path} has no image with a label that is not excluded.")
    found = {name: c for name, c in take_rows(found, is_used).items() if "1" in c.values}
    if not is_used.all():
        notes.append(
            f"{int((~is_used).sum()):,} of {len(is_used):,} images of {path} are left out: labels "
            f"or projection of {int(excluded.sum()):,} are 'exclude', and {int(empty.sum()):,} "
            "have no label."
        )
    return SourceTable(
        path=path,
        columns=take_rows(columns, is_used) | found,
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
    """Labels of a cell like "['nodule', 'pleural effusion']"; none if it is missing."""
    if is_missing(cell):
        return []
    if not LIST.fullmatch(cell):
        raise UserError(
            f"{lists.cell(cell)}, not a list: write it like ['nodule', 'pleural effusion']."
        )
    texts = (" ".join(item[1:-1].split()) for item in re.findall(ITEM, cell))
    return [text for text in texts if text]
