"""labels.csv: hard labels of a run, stored in its folder."""

from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import read_columns
from core.data.csv.labels import read_targets
from core.data.images.collection import Images
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.io.atomic import write_atomically

LABELS = "labels.csv"
_KNOWN = ("ImageID", "PatientID", "StudyID", "View", "Source")


def write_labels(path: Path, table: LabelTable) -> None:
    """Write what is known of each image, then a column per class: 1, 0, or blank for unknown.

    Soft labels are blank, and images with soft labels alone are left out: neither is scored. Raises
    UserError if `path` cannot be written.
    """
    table = table.hard()
    sources = table.sources
    if sources is not None:
        sources = np.array(table.source_names, dtype=object)[sources]
    known = (table.ids, table.patients, table.studies, table.views, sources)
    columns = {n: values for n, values in zip(_KNOWN, known, strict=True) if values is not None}
    # from -1 for unknown
    cells = np.array(["", "0", "1"])[np.nan_to_num(table.targets, nan=-1).astype(int) + 1]
    classes = pd.DataFrame(cells, columns=list(table.class_names))
    frame = pd.concat([pd.DataFrame(columns), classes], axis=1)
    write_atomically(path, lambda part: frame.to_csv(part, index=False))


def read_labels_csv(run_folder: Path) -> LabelTable:
    """Read the hard labels of the run in a folder, without its images.

    With an official split they include the training images (fold 0 in folds.csv). Raises UserError
    if labels.csv is missing, as in older runs, or was edited.
    """
    path = run_folder / LABELS
    if not path.is_file():
        raise UserError(f"{run_folder} has no {LABELS}: give a CSV of its labels with --labels")
    columns = read_columns(path)
    known = {name: columns.pop(name) for name in takewhile(_KNOWN.__contains__, [*columns])}
    if "ImageID" not in known or not columns:
        raise UserError(f"{path} was edited: give a CSV of the labels with --labels")
    targets, _ = read_targets(path, columns, [*columns], "ignore", "unknown")
    cells = {name: column.cells for name, column in known.items()}
    source = known.get("Source")
    return LabelTable(
        ids=cells["ImageID"].tolist(),
        images=Images.of_files([]),
        patients=cells.get("PatientID"),
        studies=cells.get("StudyID"),
        views=cells.get("View"),
        targets=targets,
        class_names=tuple(columns),
        sources=None if source is None else source.codes,
        source_names=() if source is None else tuple(source.values),
    )
