"""Notation of labels: 1, 0 and -1 in any spelling, true, false, yes, no, and missing values."""

import re
from decimal import Decimal

# Case-folded: what pandas, R, SQL and SAS write for a missing value.
MISSING = (
    *("", "na", "n/a", "nan", "none", "null", "<na>", "-nan", "#n/a", "#na", "#n/a n/a", "1.#ind"),
    *("-1.#ind", "1.#qnan", "-1.#qnan", "(null)", "<null>", "\\n", "."),
)
_WORDS = {
    **dict.fromkeys(MISSING, float("nan")),
    **dict.fromkeys(("true", "yes"), 1.0),
    **dict.fromkeys(("false", "no"), 0.0),
}
_LABELS = {Decimal(1): 1.0, Decimal(0): 0.0, Decimal(-1): -1.0}
# A comma before three digits may separate thousands.
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?|\d+,(?!\d{3}$)\d+)",
    re.ASCII | re.IGNORECASE,
)
_LONGEST = 40


def label_value(cell: str) -> float | None:
    """1, 0, -1 (uncertain) or NaN (missing); None where the cell is no label."""
    if len(cell) > _LONGEST:
        return None
    known = _WORDS.get(cell.casefold())
    return _LABELS.get(_number(cell)) if known is None else known


def is_missing(cell: str) -> bool:
    """Whether the cell is blank or holds a word for a missing value."""
    return cell.casefold() in MISSING


def is_probability(cell: str) -> bool:
    """Whether the cell is a number between 0 and 1."""
    return len(cell) <= _LONGEST and 0 < _number(cell) < 1


def label_key(name: str) -> str:
    """A label of a list without case, blanks, hyphens and underscores, for comparing."""
    return re.sub(r"[\s_-]", "", name.casefold())


def _number(cell: str) -> Decimal:
    """The decimal number in a cell; infinity where it is none."""
    return Decimal(cell.replace(",", ".") if _NUMBER.fullmatch(cell) else "inf")
