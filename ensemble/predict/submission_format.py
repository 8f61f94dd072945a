"""A sample submission: the rows and columns that are wanted, in their order."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.data.csv.columns import read_columns
from core.data.tables.label_table import LabelTable, read_ids
from core.errors import UserError, some


@dataclass(frozen=True, eq=False)
class Sample:
    """What a submission must hold."""

    path: Path
    id_column: str
    ids: list[str]
    class_names: list[str]


def read_sample(path: Path) -> Sample:
    """The first column's names, and the names of the others, whatever stands in their cells.

    Raises UserError for a file that is no table, and for a name that is blank or there twice.
    """
    columns = read_columns(path)
    name, *class_names = columns
    if not class_names or "" in class_names:
        raise UserError(f"{path} needs a column of names first, then a named one for each class")
    return Sample(path, name, read_ids(path, name, columns[name]), class_names)


def arrange(images: LabelTable, sample: Sample) -> LabelTable:
    """The images, or those of the studies, that `sample` names, in its order.

    Raises UserError where it names one that is not there.
    """
    keys = images.ids if images.studies is None else images.studies.tolist()
    places = {name: place for place, name in enumerate(sample.ids)}
    missing = sorted(set(places) - set(keys), key=places.__getitem__)
    if missing:
        what = "images" if images.studies is None else "studies"
        raise UserError(
            f"{len(missing):,} of {len(places):,} rows of {sample.path} are none of the {what} to "
            f"predict: {some(missing)}"
        )
    wanted = [(places[key], row) for row, key in enumerate(keys) if key in places]
    rows = np.array([row for _, row in sorted(wanted)])
    return replace(images.take(rows), id_column=sample.id_column)


def check_classes(sample: Sample, class_names: list[str]) -> None:
    """Raise UserError where the sample has a column that no class has."""
    if missing := [name for name in sample.class_names if name not in class_names]:
        raise UserError(
            f"{len(missing):,} column(s) of {sample.path} are none of the models' classes: "
            f"{some(missing, 12)}; those are {some(class_names, 20)}"
        )
