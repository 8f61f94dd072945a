"""Label values: 1, 0 and -1 in any notation, true, false, yes, no, and missing values."""

import re
from decimal import Decimal

# missing values as written by pandas, R, SQL and SAS, case-folded
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
# soft labels: in float32 others could round to 0 and 1, which are hard
SOFT_RANGE = (1e-6, 1 - 1e-6)


def label_value(cell: str, *, soft: bool = False) -> float | None:
    """1, 0, -1 (uncertain) or NaN (missing); None if the cell is not a label.

    If `soft`, numbers between 0 and 1 are labels too, clipped to SOFT_RANGE.
    """
    if len(cell) > _LONGEST:
        return None
    known = _WORDS.get(cell.casefold())
    if known is not None:
        return known
    number = _number(cell)
    if soft and 0 < number < 1:
        return min(max(float(number), SOFT_RANGE[0]), SOFT_RANGE[1])
    return _LABELS.get(number)


def is_missing(cell: str) -> bool:
    """Whether the cell is blank or a notation of a missing value."""
    return cell.casefold() in MISSING


def is_probability(cell: str) -> bool:
    """Whether the cell is a number between 0 and 1."""
    return len(cell) <= _LONGEST and 0 < _number(cell) < 1


def label_key(name: str) -> str:
    """Label name for comparison: without case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", name.casefold())


def _number(cell: str) -> Decimal:
    """Decimal number of a cell; infinity if it is not a number."""
    return Decimal(cell.replace(",", ".") if _NUMBER.fullmatch(cell) else "inf")
