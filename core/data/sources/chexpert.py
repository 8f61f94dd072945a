"""CheXpert: patient and study in the path, 1, 0, -1 and blank in the labels.

Irvin et al., "CheXpert", AAAI 2019, https://stanfordmlgroup.github.io/competitions/chexpert/:
`train.csv` and `valid.csv`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column
from core.data.csv.views import view_group
from core.data.sources.sheet import CHEXPERT_LABELS, Sheet, column
from core.errors import UserError, plain

NEEDED = ("Path", "Frontal/Lateral", "AP/PA", "No Finding")
PLACE = re.compile(r"(?:^|[/\\])(patient\d+)[/\\](study\d+)[/\\]")


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are its columns, and its paths name patients and studies."""
    names = {plain(name): name for name in columns}
    if not names.keys() >= {*map(plain, NEEDED)}:
        return False
    return all(PLACE.search(value) for value in columns[names["path"]].values[:100])


def read(path: Path, columns: dict[str, Column]) -> Sheet:
    """Its table, with columns 'Patient', 'Study' and 'View' (AP, PA, ... or Lateral) added.

    A blank means that the report says nothing of a finding, which counts as absent. Raises
    UserError for a path that names no patient and study.
    """
    paths = column(path, columns, "Path", "chexpert")
    found = [PLACE.search(value) for value in paths.values]
    for value, match in zip(paths.values, found, strict=True):
        if match is None:
            raise UserError(
                f"{paths.place(path, value)} names '{value[:80]}' in column 'Path', which is not "
                "patient00001/study1/... as in CheXpert. Pass --source plain to read it as it is."
            )
    places = [match.groups() for match in found if match]
    added = {
        "Patient": _texts([patient for patient, _ in places], paths),
        "Study": _texts([f"{patient}/{study}" for patient, study in places], paths),
    }
    views = [name for name in columns if plain(name) in ("frontallateral", "appa")]
    if len(views) == 2:
        added["View"] = _views(
            column(path, columns, "Frontal/Lateral", "chexpert"),
            column(path, columns, "AP/PA", "chexpert"),
        )
    return Sheet(
        path=path,
        columns=columns | added,
        labels=tuple(n for n in columns if plain(n) in map(plain, CHEXPERT_LABELS)),
        no_labels=(*views, "Sex", "Age", *added),
        image=("Path",),
        patient=("Patient",),
        study=("Study",),
        view=("View", "Frontal/Lateral"),
        blank="zero",
    )


def _texts(texts: list[str], like: Column) -> Column:
    """A column of one text for each of the values of another."""
    codes, values = pd.factorize(np.array(texts, dtype=object))
    return Column(codes.astype(np.int32)[like.codes], values.tolist(), like.rows, like.path)


def _views(side: Column, direction: Column) -> Column:
    """AP, PA and so on of a frontal image, where the second column tells one; else the first's."""
    pairs = side.codes.astype(np.int64) * len(direction.values) + direction.codes
    codes, held = pd.factorize(pairs)
    texts = []
    for pair in held.tolist():
        place, way = divmod(pair, len(direction.values))
        # some frontal images have LL or RL there
        both = {view_group(side.values[place]), view_group(direction.values[way])}
        texts.append(direction.values[way] if both == {"frontal"} else side.values[place])
    return _texts(texts, Column(codes, texts, side.rows, side.path))
