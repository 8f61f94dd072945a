"""What is done of an unfinished pack: a line for each block whose rows are on the disk."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.images.pack_format import Plan, is_sha256


@dataclass(frozen=True)
class Done:
    """A block that is decoded and written."""

    block: int
    sha256: str
    """Of its rows' bytes."""
    unreadable: list[tuple[int, str]]
    """(row of the pack, reason); such a row is black."""


def lines_of(done: Iterable[Done]) -> str:
    """The lines that `read_done` reads."""
    return "".join(json.dumps([one.block, one.sha256, one.unreadable]) + "\n" for one in done)


def read_done(path: Path, plan: Plan) -> dict[int, Done]:
    """The blocks that are done; a line that a kill cut short, and what is after it, is not."""
    found: dict[int, Done] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        done = _parsed(line, plan) if line.endswith("\n") else None
        if done is None:
            break
        found[done.block] = done
    return found


def _parsed(line: str, plan: Plan) -> Done | None:
    try:
        block, digest, unreadable = json.loads(line)
        pairs = [(row, reason) for row, reason in unreadable]
    except (ValueError, TypeError, RecursionError):
        return None
    if type(block) is not int or not 0 <= block < plan.blocks or not is_sha256(digest):
        return None
    rows = plan.rows(block)
    valid: list[Any] = [type(row) is int and row in rows and bool(why) for row, why in pairs]
    return Done(block, digest, [(row, str(why)) for row, why in pairs]) if all(valid) else None
