"""Findings of the checks, numbered and printed one by one."""

import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from core.errors import DOCTOR, UserError, counted, in_plain_sight

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

WIDTH = 100
# the second mark is for a terminal whose encoding lacks the first
_MARKS = {"good": ("✓", "ok"), "doubt": ("!", " !"), "bad": ("✗", "NO"), "unseen": ("-", " -")}


class Findings:
    """Prints findings as they come, and counts them."""

    def __init__(self) -> None:
        try:
            "✓✗".encode(getattr(sys.stdout, "encoding", None) or "ascii")
            self._ascii = 0
        except (UnicodeEncodeError, LookupError):
            self._ascii = 1
        self._counts: Counter[str] = Counter()
        self._bad: list[int] = []

    def heading(self, title: str) -> None:
        """Begin a group of findings."""
        print(title if not self._counts else f"\n{title}")

    def good(self, sentence: str) -> None:
        """All is well."""
        self._print("good", sentence)

    def doubt(self, sentence: str, remedy: str = "") -> None:
        """It may be intended; `remedy` says what to do otherwise."""
        self._print("doubt", sentence, remedy)

    def bad(self, sentence: str, remedy: str = "") -> None:
        """It is wrong; `remedy` says what to do, where the sentence does not."""
        self._print("bad", sentence, remedy)

    def unseen(self, sentence: str) -> None:
        """It was not checked, as something before it is wrong or no flag asks for it."""
        self._print("unseen", sentence)

    def look(
        self,
        what: str,
        check: Callable[Concatenate["Findings", Parameters], Result],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result | None:
        """Result of `check(self, ...)`; None where it raised, which is then a finding itself."""
        try:
            return check(self, *arguments, **named)
        except UserError as error:
            self.bad(str(error))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            self.bad(
                f"{what} could not be checked: {type(error).__name__}: {reason}",
                "this is a mistake of the doctor or of a package; the other checks go on",
            )
        return None

    def end(self) -> int:
        """Print how many findings of each kind there were; the exit code: 1 if one is bad."""
        counts = [f"{self._counts[k]} {self._mark(k).strip()}" for k in _MARKS if self._counts[k]]
        wrong = f" (see {', '.join(map(str, self._bad))})" if self._bad else ""
        print(f"\n{counted(self._counts.total(), 'check')}: {', '.join(counts)}{wrong}")
        return int(bool(self._bad))

    def _mark(self, kind: str) -> str:
        return _MARKS[kind][self._ascii]

    def _print(self, kind: str, sentence: str, remedy: str = "") -> None:
        self._counts[kind] += 1
        number = self._counts.total()
        if kind == "bad":
            self._bad.append(number)
        start = f"{number:3} {self._mark(kind)} "
        # a pointer to the doctor has nothing more to say here
        sentence = sentence.partition(DOCTOR)[0].rstrip(".")
        text = textwrap.fill(
            in_plain_sight(sentence + (f": {remedy}" if remedy else "")),
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(text, flush=True)
