"""The one exception that means "the user can mend this", and words for its sentence."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """One clear sentence for the user: what is wrong, where, and what to do.

    `core.cli.run` prints it without a traceback and exits with code 2.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """ ": did you mean 'X'?" for the most similar of `names`, or what there is."""
    known = {plain(other): other for other in names if other}
    close = get_close_matches(plain(name), known, n=1)
    if close:
        return f": did you mean '{known[close[0]]}'?"
    return f"; it has {some(list(known.values()), 12)}"


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
