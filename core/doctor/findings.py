"""What the checks found, numbered and printed one by one."""

import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from core.errors import DOCTOR, UserError, counted, in_plain_sight

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

WIDTH = 100
# good, doubtful, wrong, and not looked at because something before it is wrong
_MARKS = {"good": "✓", "doubt": "!", "bad": "✗", "unseen": "-"}
_ASCII = {"good": "ok", "doubt": " !", "bad": "NO", "unseen": " -"}


class Findings:
    """Prints findings as they come, and remembers what they were.

    The marks are ASCII where the terminal's encoding has no others.
    """

    def __init__(self) -> None:
        self._marks = _MARKS if _can_print("".join(_MARKS.values())) else _ASCII
        self._counts: Counter[str] = Counter()
        self._wrong: list[int] = []

    def heading(self, title: str) -> None:
        """Begin a group of findings."""
        print(title if not self._counts else f"\n{title}")

    def good(self, sentence: str) -> None:
        """All is well."""
        self._tell("good", sentence)

    def doubt(self, sentence: str, mend: str = "") -> None:
        """It can be meant so; `mend` says what to do otherwise."""
        self._tell("doubt", sentence, mend)

    def bad(self, sentence: str, mend: str = "") -> None:
        """It is wrong; `mend` says what to do, where the sentence does not."""
        self._tell("bad", sentence, mend)

    def unseen(self, sentence: str) -> None:
        """It was not looked at."""
        self._tell("unseen", sentence)

    def look(
        self,
        what: str,
        check: Callable[Concatenate["Findings", Parameters], Result],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result | None:
        """What `check(self, ...)` returns; None where it raised, which is then a finding itself.

        The sentence of a UserError says what to do. Whatever else is raised leaves the other checks
        alone.
        """
        try:
            return check(self, *arguments, **named)
        except UserError as error:
            self.bad(str(error))
        except Exception as error:
            told = " ".join(str(error).split())[:300]
            self.bad(
                f"{what} could not be checked: {type(error).__name__}: {told}",
                "this is a mistake of the doctor or of a package; the other checks go on",
            )
        return None

    def end(self) -> int:
        """Print how many of each there were; the exit code: 1 where something is wrong."""
        total = sum(self._counts.values())
        parts = [
            f"{self._counts[kind]} {self._marks[kind].strip()}"
            for kind in _MARKS
            if self._counts[kind]
        ]
        wrong = f" (see {', '.join(map(str, self._wrong))})" if self._wrong else ""
        print(f"\n{counted(total, 'check')}: {', '.join(parts)}{wrong}")
        return int(bool(self._wrong))

    def _tell(self, kind: str, sentence: str, mend: str = "") -> None:
        self._counts[kind] += 1
        number = sum(self._counts.values())
        if kind == "bad":
            self._wrong.append(number)
        start = f"{number:3} {self._marks[kind]} "
        # what points here has nothing more to say
        sentence = sentence.partition(DOCTOR)[0].rstrip(".")
        text = in_plain_sight(sentence + (f": {mend}" if mend else ""))
        print(
            textwrap.fill(
                text,
                WIDTH,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_long_words=False,
                break_on_hyphens=False,
            ),
            flush=True,
        )


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
