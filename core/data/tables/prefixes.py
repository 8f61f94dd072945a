"""Names of images, patients and studies in a table of several sources: prefixed by the source."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable
from core.data.tables.merge import MIMIC_PATIENTS, SourceFile
from core.errors import UserError, pluralize


def prefix_sources(
    tables: Sequence[LabelTable], files: Sequence[SourceFile], same_people: Sequence[int]
) -> list[LabelTable]:
    """Prefix images with the source's name and "/", patients and studies with that of their people.

    `same_people` is the result of `find_same_people`. A patient of a CSV with soft labels alone is
    the one of that name in another CSV, with or without the letter p of MIMIC-CXR. Its images are
    left out if several people have the name. Raises UserError if these are all images of a CSV.
    """
    result = [
        _prefix_source(table, file, files[first].name)
        for table, file, first in zip(tables, files, same_people, strict=True)
    ]
    is_pseudo = [bool(table.is_pseudo.all()) for table in tables]
    owners = defaultdict[str, set[str]](set)
    for table, prefixed, pseudo in zip(tables, result, is_pseudo, strict=True):
        if not pseudo and table.patients is not None and prefixed.patients is not None:
            for name, owner in set(zip(table.patients, prefixed.patients, strict=True)):
                owners[name.removeprefix("p")].add(owner)
    for place in np.flatnonzero(is_pseudo).tolist():
        names = tables[place].patients
        if names is not None and owners:
            result[place] = _find_owners(result[place], names, owners, files[place].csv)
    return result


def _find_owners(
    table: LabelTable, names: np.ndarray, owners: Mapping[str, set[str]], csv: Path
) -> LabelTable:
    """Rename patients by `owners` of their `names` (N,) in the CSV; leave out ambiguous ones."""
    assert table.patients is not None
    found = [owners.get(name.removeprefix("p"), set()) for name in names]
    patients = [
        min(several, default=own) for several, own in zip(found, table.patients, strict=True)
    ]
    table = replace(table, patients=np.array(patients, dtype=object))
    note = ""
    if not any(found):
        note = (
            f"Warning: no patient of {csv}, which has soft labels alone, is in another CSV by "
            "name; if they are the same people, use the same names."
        )
    is_ambiguous = np.array([len(several) > 1 for several in found])
    if is_ambiguous.any():
        why = "their patients have the names of several people in the other CSVs"
        if is_ambiguous.all():
            raise UserError(f"no image of {csv} can be used, as {why}: rename them")
        count = pluralize(int(is_ambiguous.sum()), "image")
        note = f"Warning: {count} of {csv} left out, as {why}."
        table = table.take(~is_ambiguous)
    return replace(table, notes=(*table.notes, note)) if note else table


def _prefix_source(table: LabelTable, file: SourceFile, people: str) -> LabelTable:
    """Prefix images with the source's name, patients and studies with `people`."""

    def add_prefix(values: np.ndarray | None, letter: str) -> np.ndarray | None:
        if values is None:
            return None
        # only once per distinct value
        codes, distinct = pd.factorize(values)
        texts = [f"{people}/{value.removeprefix(letter)}" for value in distinct]
        return np.array(texts, dtype=object)[codes]

    letters = ("p", "s") if file.source.patient == MIMIC_PATIENTS else ("", "")
    return replace(
        table,
        ids=[f"{file.name}/{one}" for one in table.ids],
        patients=add_prefix(table.patients, letters[0]),
        studies=add_prefix(table.studies, letters[1]),
    )
