"""Findings of the checks, numbered and printed one by one."""

import sys
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from core.errors import DOCTOR, UserError, escape_control, pluralize
from core.runtime.log import logger

Result = TypeVar("Result")

WIDTH = 100
# good, doubtful, bad, unchecked; the second set is for encodings without the first
_MARKS = (("✓", "!", "✗", "-"), ("ok", " !", "NO", " -"))


class Findings:
    """Print and count the findings of the checks; `remedy` is what the user can do."""

    def __init__(self) -> None:
        try:
            "✓✗".encode(getattr(sys.stdout, "encoding", None) or "ascii")
            self._marks = _MARKS[0]
        except UnicodeEncodeError:
            self._marks = _MARKS[1]
        self._found: list[int] = []

    def heading(self, title: str) -> None:
        """Start a group of findings."""
        logger.info(f"\n{title}" if self._found else title)

    def good(self, sentence: str) -> None:
        """Report a passed check."""
        self._print(0, sentence)

    def doubt(self, sentence: str, remedy: str = "") -> None:
        """Report a doubt, which may be intended."""
        self._print(1, sentence, remedy)

    def bad(self, sentence: str, remedy: str = "") -> None:
        """Report a problem."""
        self._print(2, sentence, remedy)

    def skip(self, sentence: str) -> None:
        """Report a check that was skipped, by an earlier problem or for lack of a flag."""
        self._print(3, sentence)

    def attempt(self, check: Callable[..., Result], *arguments: Any) -> Result | None:
        """Result of `check(self, ...)`; None if it raised, which becomes a finding."""
        try:
            return check(self, *arguments)
        except UserError as error:
            self.bad(str(error))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            self.bad(
                f"{check.__name__} failed: {type(error).__name__}: {reason}",
                "this is a defect of the doctor or of a package; the other checks continue",
            )
        return None

    def end(self) -> int:
        """Print the number of findings of each kind; returns exit code 1 for any problem."""
        counts = [(self._found.count(kind), mark.strip()) for kind, mark in enumerate(self._marks)]
        text = ", ".join(f"{count} {mark}" for count, mark in counts if count)
        bad = [str(number) for number, kind in enumerate(self._found, 1) if kind == 2]
        wrong = f" (see {', '.join(bad)})" if bad else ""
        logger.info(f"\n{pluralize(len(self._found), 'check')}: {text}{wrong}")
        return int(bool(bad))

    def _print(self, kind: int, sentence: str, remedy: str = "") -> None:
        self._found.append(kind)
        start = f"{len(self._found):3} {self._marks[kind]} "
        # a hint to run the doctor is omitted here
        sentence = sentence.partition(DOCTOR)[0].rstrip(".;")
        text = textwrap.fill(
            escape_control(sentence + (f": {remedy}" if remedy else "")),
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
        logger.info(text)
