"""CheXpert: patient and study from the path; labels are 1, 0, -1 and blank.

Irvin et al., "CheXpert", AAAI 2019, https://stanfordmlgroup.github.io/competitions/chexpert/:
`train.csv` and `valid.csv`.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column, find_named, has_columns, names_among
from core.data.csv.views import view_group
from core.data.sources.source_table import CHEXPERT_LABELS, SourceTable, column
from core.errors import UserError

VIEWS = ("Frontal/Lateral", "AP/PA")
NEEDED = ("Path", *VIEWS, "No Finding")
PLACE = re.compile(r"(?:^|[/\\])(patient\d+)[/\\](study\d+)[/\\]")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has its columns, and paths with patients and studies."""
    return has_columns(columns, NEEDED) and all(
        PLACE.search(value) for value in column(columns, "Path", "chexpert").values[:100]
    )


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read the table, and add columns 'Patient', 'Study' and 'View' (AP, PA, ... or Lateral).

    A blank means that the report does not mention a finding, and counts as absent. Raises UserError
    for a path without patient and study.
    """
    paths = column(columns, "Path", "chexpert")
    places = []
    for value in paths.values:
        match = PLACE.search(value)
        if match is None:
            raise UserError(
                f"{paths.place(value)}: '{value[:80]}' in column 'Path' is not a CheXpert path "
                "(patient00001/study1/...). Pass --source plain to read it as a plain table."
            )
        places.append(match.groups())
    added = {
        "Patient": paths.with_texts("Patient", [patient for patient, _ in places]),
        "Study": paths.with_texts("Study", map("/".join, places)),
    }
    side, direction = (find_named(columns, name) for name in VIEWS)
    if side is not None and direction is not None:
        added["View"] = _views(side, direction)
    return SourceTable(
        path=path,
        columns=columns | added,
        labels=names_among(columns, CHEXPERT_LABELS),
        no_labels=(*names_among(columns, VIEWS), "Sex", "Age", *added),
        image=("Path",),
        patient=("Patient",),
        study=("Study",),
        view=("View", "Frontal/Lateral"),
        blank="zero",
    )


def _views(side: Column, direction: Column) -> Column:
    """View of each image: the second column for frontal images with a frontal value there, else the
    first column."""
    # some frontal images have LL or RL there
    are_frontal = [c.each(lambda view: view_group(view) == "frontal") for c in (side, direction)]
    views = np.where(np.logical_and(*are_frontal), direction.cells, side.cells)
    codes, values = pd.factorize(views)
    return replace(side, name="View", codes=codes.astype(np.int32), values=values.tolist())
