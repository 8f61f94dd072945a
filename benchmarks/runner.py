"""Measure, and say it as a ratio against a limit or a peer of the same run."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """One row: what was asked, what was measured, and what it is held against."""

    question: str
    measured: float
    against: str
    reference: float
    unit: str

    def __str__(self) -> str:
        ratio = self.measured / self.reference
        verdict = "ok" if ratio <= 1 else "MISSED"
        return (
            f"{self.question:<52} {self.measured:>9.3g} {self.unit:<3}"
            f" {self.against:>24} {self.reference:>8.3g} {ratio:>6.2f}  {verdict}"
        )


HEADER = f"{'question':<52} {'measured':>13} {'against':>24} {'':>8} {'ratio':>6}"


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of `work`, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def real_data() -> Path | None:
    """The folder of real radiographs and label tables, if it is at hand."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_REAL_DATA", beside))
    return folder if folder.is_dir() else None
