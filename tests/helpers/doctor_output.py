"""What the doctor prints, as a list."""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from core.doctor.findings import Findings

BEGINS = re.compile(r"^ *(\d+) (✓|!|✗|-) ", re.MULTILINE)


def listed(text: str) -> list[tuple[str, str]]:
    """(mark, sentence) of each finding, in their order; checks that they are numbered from 1."""
    _, *parts = BEGINS.split(text.partition("\n\n1 check")[0])
    numbers, marks, sentences = parts[::3], parts[1::3], parts[2::3]
    assert list(map(int, numbers)) == list(range(1, len(numbers) + 1))
    whole = [" ".join(re.split(r"\n(?=\S|\n)", one)[0].split()) for one in sentences]
    return list(zip(marks, whole, strict=True))


def told(check: Callable[..., object], *arguments: Any) -> list[tuple[str, str]]:
    """The findings of one check."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(out):
        Findings().look("this", check, *arguments)
    out.seek(0)
    return listed(out.read())


def marked(findings: list[tuple[str, str]], mark: str) -> str:
    """The sentences with this mark."""
    return "\n".join(sentence for one, sentence in findings if one == mark)
