"""Columns that may name patients under a name that is not known."""

import re
from collections.abc import Collection, Mapping

from core.data.csv.columns import Column
from core.data.csv.label_values import is_missing
from core.data.csv.non_labels import is_known_non_label
from core.errors import normalize_name

# of a patient's identifier, and of what else is known of a patient
_NAMED = re.compile(
    "patient|subject|person|participant|individual|client|mrn|medicalrecord|healthrecord|case"
    "|pseudonym"
)
_OTHER = re.compile("(?:age|sex|gender|birth|race|ethnic|date|time|weight|height|size|position)")
_IDENTIFIER = re.compile(r"(?=.*\d)[^\s,;/\\]{2,64}")
_DECIMAL = re.compile(r"[+-]?\d+[.,]\d+")
# images a patient, on average: more than in any public collection; and where the name says nothing
_MOST_IMAGES, _MOST_UNNAMED = 50, 10


def likely_patient_columns(columns: Mapping[str, Column], known: Collection[str]) -> list[str]:
    """Columns whose name or cells look like an identifier that several rows share.

    Those that are `known` to be something else are left out; those that are named so come first.
    """
    named, others = [], []
    for name, column in columns.items():
        filled = [text for text in column.values if not is_missing(text)]
        images = len(column.codes) / max(len(filled), 1)
        if name in known or len(filled) < 2 or not 1 < images <= _MOST_IMAGES:
            continue
        if _NAMED.search(normalize_name(name)) and not _OTHER.search(normalize_name(name)):
            named.append(name)
        elif images <= _MOST_UNNAMED and not is_known_non_label(name) and _are_codes(filled):
            others.append(name)
    return named + others


def _are_codes(texts: Collection[str]) -> bool:
    """Whether all texts have a digit and no blank, and are no decimal numbers."""
    return all(_IDENTIFIER.fullmatch(text) and not _DECIMAL.fullmatch(text) for text in texts)
