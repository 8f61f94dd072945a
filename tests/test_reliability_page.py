"""docs/reliability.md holds the last `make soak`, and docs/training.md claims no more than that."""

import re

from tests.helpers.fault_table import BEGIN, END
from tests.helpers.training.small_run import ROOT

OTHERS = [
    *("SIGTERM", "second Ctrl-C", "time limit of a SLURM job", "resume with other data"),
    *("SIGKILL to one process", "SIGKILL to a whole node", "unreadable image or NaN"),
    *("full disk", "a disk that is really full", "read-only folder", "folder removed or moved"),
    *("too small a /dev/shm", "fp16 overflow", "class that never appears", "equal pixels"),
]
ROW = re.compile(r"\| (.+) \| ([\d,]+) \| ([\d,]+) \|")


def rows() -> dict[str, tuple[int, int]]:
    """Fault: (times tried, lost), as the page has them."""
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    table = page.split(BEGIN)[1].split(END)[0]
    return {
        name: (int(tried.replace(",", "")), int(lost.replace(",", "")))
        for name, tried, lost in ROW.findall(table)
    }


def tried(start: str) -> int:
    return sum(count for name, (count, _) in rows().items() if name.startswith(start))


def test_the_page_shows_a_whole_soak_and_explains_lost_runs() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    fixed = "".join(page.partition("**Lost, and fixed since**")[1:])
    assert [name for name, (_, lost) in rows().items() if lost and name not in fixed] == []
    assert tried("SIGKILL while") >= 50
    assert tried("hostile") >= 20_000
    for fault in OTHERS:
        assert tried(fault) > 0, fault


def test_the_training_page_claims_no_more_than_the_page() -> None:
    readme = " ".join((ROOT / "docs/training.md").read_text(encoding="utf-8").split())
    packings = re.search(r"packing some (\d+) times", readme)
    assert packings
    assert 0.9 * int(packings[1]) <= tried("SIGKILL while") <= 1.3 * int(packings[1])
    assert "feeds tens of thousands of hostile files" in readme
    assert 20_000 <= tried("hostile") < 100_000
