"""Anonymous names: a digest of the list of names, then the number of the row.

Only someone with the same list can find the image of a number, by numbering the list again.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from core.data.tables.label_table import LabelTable


def number_names(names: Sequence[str]) -> list[str]:
    """DIGEST-NUMBER for each of N distinct names, counted from 1 in their order.

    The digest depends on all names and their order, so two different lists share no result.
    """
    # file names may be invalid UTF-8
    data = "\n".join(names).encode(errors="surrogateescape")
    digest = hashlib.sha256(data).hexdigest()[:8]
    return [f"{digest}-{number:06}" for number in range(1, len(names) + 1)]


def anonymize(table: LabelTable) -> LabelTable:
    """Replace the names of images, patients and studies by `number_names`; paths are unchanged."""

    def number_groups(groups: np.ndarray | None) -> np.ndarray | None:
        """Numbers (N,) str, in the order in which the groups first occur."""
        if groups is None:
            return None
        codes, names = pd.factorize(groups)
        return np.array(number_names(names.tolist()), dtype=object)[codes]

    patients, studies = number_groups(table.patients), number_groups(table.studies)
    return replace(table, ids=number_names(table.ids), patients=patients, studies=studies)


def restore_names(ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names behind the numbers `ids`; `ids` unchanged unless the first one is such a number.

    `names` is the whole list, in the order in which it was numbered.
    """
    if not any(map(is_numbered, ids[:1])):
        return list(ids)
    original = dict(zip(number_names(names), names, strict=True))
    return [original.get(one, one) for one in ids]


def is_numbered(name: str) -> bool:
    """Whether `name` has the form that `number_names` gives."""
    return re.fullmatch(r"[0-9a-f]{8}-\d{6,}", name) is not None
