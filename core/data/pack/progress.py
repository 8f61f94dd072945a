"""Finished blocks of an unfinished pack: one line of JSON for each whose rows are on the disk."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.data.images.pack_format import Plan, is_sha256


@dataclass(frozen=True)
class Done:
    """A block that is decoded and written."""

    block: int
    sha256: str
    """Of its rows' bytes."""
    unreadable: list[tuple[int, str]]
    """(row of the pack, reason); such a row is black."""


def done_lines(done: Iterable[Done]) -> str:
    """The lines that `read_done` reads."""
    return "".join(json.dumps([one.block, one.sha256, one.unreadable]) + "\n" for one in done)


def read_done(path: Path, plan: Plan) -> dict[int, Done]:
    """The blocks that are done; a line that a kill cut short, and what is after it, is not."""
    found: dict[int, Done] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        try:
            block, digest, unreadable = json.loads(line)
            rows = plan.rows(range(plan.blocks).index(block))
            reasons = [(rows[rows.index(row)], str(why)) for row, why in unreadable]
        except (ValueError, TypeError, RecursionError):
            break
        if not line.endswith("\n") or not is_sha256(digest):
            break
        found[block] = Done(block, digest, reasons)
    return found
