"""Names that say nothing: the number of each row, after a mark of the list that is numbered.

Who has the list can number it again, and so find the image of a number; nobody else can.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable


def number_names(names: Sequence[str]) -> list[str]:
    """For each of N different names MARK-NUMBER, counted from 1 in their order.

    The mark is that of the whole list: of another one, or in another order, no number is the same.
    """
    # a file's name may be no UTF-8
    whole = "\n".join(names).encode(errors="surrogateescape")
    mark = hashlib.sha256(whole).hexdigest()[:8]
    return [f"{mark}-{number:06}" for number in range(1, len(names) + 1)]


def anonymize(table: LabelTable) -> LabelTable:
    """`table` with numbers for its images, patients and studies. Paths stay: images are read."""

    def numbered_groups(groups: np.ndarray | None) -> np.ndarray | None:
        """(N,) str, counted by the first image of each."""
        if groups is None:
            return None
        codes, names = pd.factorize(groups)
        return np.array(number_names(names.tolist()), dtype=object)[codes]

    patients, studies = numbered_groups(table.patients), numbered_groups(table.studies)
    return replace(table, ids=number_names(table.ids), patients=patients, studies=studies)


def restore_names(ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of `names` whose numbers `ids` are; `ids` themselves where the first is no number.

    `names` is the whole list, in the order in which it was numbered.
    """
    if not any(map(is_numbered, ids[:1])):
        return list(ids)
    real = dict(zip(number_names(names), names, strict=True))
    return [real.get(one, one) for one in ids]


def is_numbered(name: str) -> bool:
    """Whether it looks like a name of `numbered`."""
    return re.fullmatch(r"[0-9a-f]{8}-\d{6,}", name) is not None
