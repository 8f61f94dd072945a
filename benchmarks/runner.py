"""Measure pieces of work side by side, and say the ratio of two as one row."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError


@dataclass(frozen=True)
class Answer:
    """One row: what was asked, what was measured, and what it is held against.

    A bound is on the ratio measured / reference: a floor, or a ceiling, or neither.
    """

    question: str
    measured: float
    """In `unit`, as is `reference`."""
    against: str
    """What the reference is: a limit, or a peer that was measured in the same run."""
    reference: float
    unit: str
    floor: float | None = None
    """The least ratio that is ok."""
    ceiling: float | None = None
    """The largest ratio that is ok."""

    @property
    def ratio(self) -> float:
        """measured / reference."""
        return self.measured / self.reference

    @property
    def verdict(self) -> str | None:
        """ "ok" or "MISSED"; None where there is no bound."""
        if self.floor is not None:
            return "ok" if self.ratio >= self.floor else "MISSED"
        if self.ceiling is not None:
            return "ok" if self.ratio <= self.ceiling else "MISSED"
        return None

    def record(self) -> dict[str, Any]:
        """The row with all its fields by name, as JSON can hold them."""
        return {
            "question": self.question,
            "measured": self.measured,
            "unit": self.unit,
            "against": self.against,
            "reference": self.reference,
            "ratio": self.ratio,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        bound = ""
        if self.floor is not None:
            bound = f">= {self.floor:g}"
        elif self.ceiling is not None:
            bound = f"<= {self.ceiling:g}"
        return (
            f"{self.question:<52} {_short(self.measured):>9} {self.unit:<8} {self.against:>24} "
            f"{_short(self.reference):>8} {_short(self.ratio):>8} {bound:>8}  {self.verdict or ''}"
        ).rstrip()


def _short(number: float) -> str:
    """Three digits, or all of a larger number's whole ones."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


HEADER = f"{'question':<52} {'measured':>18} {'against':>24} {'':>8} {'ratio':>8} {'bound':>8}"


def medians(works: Mapping[str, Callable[[], float]], repeats: int = 5) -> dict[str, float]:
    """By name, the median of what each work returns over `repeats` calls.

    The works take turns (A B A B ...), so that what else the machine does meets them alike. A first
    round is not counted.
    """
    rounds = [{name: work() for name, work in works.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(measured[name] for measured in rounds[1:]) for name in works}


def middle(rounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The pair (measured, reference) whose ratio is the median (of two, the larger).

    For rounds that measure both side by side: what slows a machine slows both, so that their ratio
    is steadier than the ratio of two medians.
    """
    return sorted(rounds, key=lambda pair: pair[0] / pair[1])[len(rounds) // 2]


def timed(work: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """A work for `medians`: wall-clock seconds of one call of `work`, the mean of `calls`."""

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls

    return measure


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of `work`, after one run that is not counted."""
    return medians({"work": timed(work)}, repeats)["work"]


def no_flags(description: str | None) -> None:
    """Answer --help, and refuse every other word: for a script that takes none."""
    shown = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=description, formatter_class=shown).parse_args()


def imagenet_weights() -> Path:
    """The file of tf_efficientnet_lite0's. Raises UserError where no real data is at hand."""
    data = real_data()
    if data is None:
        raise UserError("the ImageNet weights are not at hand: set CXR_REAL_DATA")
    return data.parent / "weights" / "tf_efficientnet_lite0_in1k.safetensors"


def real_data() -> Path | None:
    """The folder of real radiographs and label tables, if it is at hand."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_REAL_DATA", beside))
    return folder if folder.is_dir() else None
