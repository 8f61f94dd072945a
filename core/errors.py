"""The one exception that means "the user can mend this", and words for its sentence."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# line breaks and other control characters, and what turns the direction of writing
_STEERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST = 1000
DOCTOR = "; `python -m core.doctor"


class UserError(ValueError):
    """One clear sentence for the user: what is wrong, where, and what to do.

    A command prints it without a traceback and exits with code 2. What would steer a terminal is
    written out, and of a long text the middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        sentence = in_plain_sight(sentence)
        if len(sentence) > _LONGEST:
            sentence = f"{sentence[: _LONGEST // 2]} ... {sentence[-_LONGEST // 3 :]}"
        super().__init__(sentence)


def in_plain_sight(text: str) -> str:
    """The text with line breaks, and what else would steer a terminal, written out."""
    return _STEERS.sub(lambda found: ascii(found[0])[1:-1], text)


def nearest(name: str, names: Iterable[str]) -> str:
    """ ": did you mean 'X'?" for the most similar of `names`, or what there is, if anything."""
    known = {plain(other): other for other in names if other}
    # the time goes by the square of the length
    close = get_close_matches(plain(name)[:200], [key for key in known if len(key) <= 200], n=1)
    if close:
        return f": did you mean '{known[close[0]]}'?"
    return f"; it has {some(list(known.values()), 12)}" if known else ""


def see_doctor(does: str, flags: str = "") -> str:
    """The end of a sentence that `python -m core.doctor` says more about."""
    return f"{DOCTOR}{flags}` {does}"


def some(names: Sequence[object], shown: int = 3) -> str:
    """The first few names and how many more there are: "a, b, c and 7 more"."""
    text = ", ".join(str(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown:,} more"


def size_of(size: float) -> str:
    """Bytes as a person reads them: "1.2 GB", and "3.4 MB" below one of those."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def counted(number: int, one: str, several: str = "") -> str:
    """ "1 file", "2,000 files"; `several` where that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def plain(name: str) -> str:
    """A name without case and punctuation, for comparing."""
    return re.sub(r"[\W_]", "", name.casefold())
