"""Detection of likely patient columns with unusual names."""

import re
from collections.abc import Collection, Mapping

from core.data.csv.columns import Column
from core.data.csv.label_values import is_missing
from core.data.csv.non_labels import is_known_non_label
from core.errors import normalize_name

# in names of identifiers, and of other facts about a patient
_NAMED = re.compile(
    "patient|subject|person|participant|individual|client|mrn|medicalrecord|healthrecord|case"
    "|pseudonym"
)
_OTHER = re.compile("(?:age|sex|gender|birth|race|ethnic|date|time|weight|height|size|position)")
_IDENTIFIER = re.compile(r"(?=.*\d)[^\s,;/\\]{2,64}")
_DECIMAL = re.compile(r"[+-]?\d+[.,]\d+")
# largest mean number of images per patient: if the name matches (above any public dataset), if not
_MOST_IMAGES, _MOST_UNNAMED = 50, 10


def likely_patient_columns(columns: Mapping[str, Column], known: Collection[str]) -> list[str]:
    """Columns that look like an identifier shared by several rows; those by name come first.

    Columns in `known` have another use and are left out.
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
    """Whether all texts have a digit, have no blanks and are not decimal numbers."""
    return all(_IDENTIFIER.fullmatch(text) and not _DECIMAL.fullmatch(text) for text in texts)
