"""UserError, the exception for what the user can fix, and helpers for its sentence."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# control characters, line breaks and marks that change the direction of writing
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST = 1000
DOCTOR = " `python -m core.doctor"


class UserError(ValueError):
    """One clear sentence for the user: what is wrong, where, and what to do.

    A command prints it without a traceback and exits with code 2. Control characters are escaped
    and the middle of a long text is left out.
    """

    def __init__(self, sentence: str) -> None:
        sentence = escape_control(sentence)
        if len(sentence) > _LONGEST:
            sentence = f"{sentence[: _LONGEST // 2]} ... {sentence[-_LONGEST // 3 :]}"
        super().__init__(sentence)


def escape_control(text: str) -> str:
    """Escape line breaks and other control characters."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def suggest_name(name: str, names: Iterable[str]) -> str:
    """ ": did you mean 'X'?" for the most similar of `names`, else a list of them, else ""."""
    known = {normalize_name(other): other for other in names if other}
    # the time is quadratic in the length
    short = [key for key in known if len(key) <= 200]
    close = get_close_matches(normalize_name(name)[:200], short, n=1)
    if close:
        return f": did you mean '{known[close[0]]}'?"
    return f"; it has {list_first(list(known.values()), 12)}" if known else ""


def doctor_hint(does: str, flags: str = "", *, after: str = "") -> str:
    """The sentence `after`, then a recommendation of `python -m core.doctor`."""
    sentence = after.rstrip(".")
    return f"{sentence}{'' if sentence.endswith('?') else ';'}{DOCTOR}{flags}` {does}"


def list_first(names: Sequence[object], shown: int = 3) -> str:
    """The first few names and the number of the others: "a, b, c and 7 more"."""
    text = ", ".join(str(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown:,} more"


def format_size(size: float) -> str:
    """A number of bytes as "1.2 GB" or, below 1 GB, "3.4 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def format_time(seconds: float) -> str:
    """A duration as "45 s", "3.4 min" from two minutes on, "3.4 hours" from two hours on."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} hours"


def pluralize(number: int, one: str, several: str = "") -> str:
    """ "1 file", "2,000 files"; `several` is the irregular plural."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def normalize_name(name: str) -> str:
    """A name without case and punctuation, for comparisons."""
    return re.sub(r"[\W_]", "", name.casefold())
