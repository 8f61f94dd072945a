"""Names of images, patients and studies in a table of several sources: prefixed by the source."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable
from core.data.tables.merge import MIMIC_PATIENTS, SourceFile


def prefix_sources(
    tables: Sequence[LabelTable], files: Sequence[SourceFile], same_people: Sequence[int]
) -> list[LabelTable]:
    """Prefix images with the source's name and "/", patients and studies with that of their people.

    `same_people` is the result of `find_same_people`. A patient of a CSV with soft labels alone is
    the one of that name in the first other CSV that has it.
    """
    is_pseudo = [bool(table.is_pseudo.all()) for table in tables]
    owners: dict[str, str] = {}
    result = list(tables)
    for place in sorted(range(len(tables)), key=is_pseudo.__getitem__):
        table, people = tables[place], files[same_people[place]].name
        known = owners if is_pseudo[place] else {}
        result[place] = _prefix_source(table, files[place], people, known)
        if table.patients is None or is_pseudo[place]:
            continue
        for name in pd.unique(table.patients):
            owners.setdefault(name, people)
    return result


def _prefix_source(
    table: LabelTable, file: SourceFile, people: str, owners: Mapping[str, str]
) -> LabelTable:
    """Prefix images with the source's name, patients and studies with `people` or `owners`."""

    def add_prefix(
        values: np.ndarray | None, letter: str, owners: Mapping[str, str]
    ) -> np.ndarray | None:
        if values is None:
            return None
        # only once per distinct value
        codes, distinct = pd.factorize(values)
        texts = [f"{owners.get(value, people)}/{value.removeprefix(letter)}" for value in distinct]
        return np.array(texts, dtype=object)[codes]

    letters = ("p", "s") if file.source.patient == MIMIC_PATIENTS else ("", "")
    return replace(
        table,
        ids=[f"{file.name}/{one}" for one in table.ids],
        patients=add_prefix(table.patients, letters[0], owners),
        studies=add_prefix(table.studies, letters[1], {}),
    )
