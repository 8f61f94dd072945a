"""Benchmark runner: measures two functions in alternation, reports ratios, and starts studies."""

import argparse
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.config.command_line import run
from core.errors import UserError

HEADER = f"{'question':<52} {'measured':>18} {'against':>24} {'':>8} {'ratio':>8} {'bound':>8}"


@dataclass(frozen=True)
class Answer:
    """Row of the table: our figure against a limit, or against a peer measured in alternation."""

    question: str
    unit: str
    against: str
    measured: float
    reference: float
    floor: float | None = None
    """Smallest accepted measured / reference."""
    ceiling: float | None = None
    """Largest accepted measured / reference."""

    @classmethod
    def limited(cls, question: str, unit: str, measured: float, limit: float) -> "Answer":
        """Row with a fixed limit."""
        return cls(question, unit, "limit", measured, limit, ceiling=1)

    @property
    def ratio(self) -> float:
        """measured / reference."""
        return self.measured / self.reference

    @property
    def verdict(self) -> str | None:
        """ "ok" or "MISSED"; None without a bound."""
        if self.floor is None and self.ceiling is None:
            return None
        low, high = self.floor or -math.inf, math.inf if self.ceiling is None else self.ceiling
        return "ok" if low <= self.ratio <= high else "MISSED"

    def record(self) -> dict[str, Any]:
        """All fields by name, for JSON."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}

    def __str__(self) -> str:
        bounds = {">=": self.floor, "<=": self.ceiling}
        bound = "".join(f"{sign} {at:g}" for sign, at in bounds.items() if at is not None)
        measured, reference, ratio = map(_short, (self.measured, self.reference, self.ratio))
        return (
            f"{self.question:<52} {measured:>9} {self.unit:<8} {self.against:>24} "
            f"{reference:>8} {ratio:>8} {bound:>8}  {self.verdict or ''}"
        ).rstrip()


def _short(number: float) -> str:
    """Format with three digits, or without decimals from 1,000 on; "-" for NaN."""
    if math.isnan(number):
        return "-"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def medians(works: Mapping[str, Callable[[], float]], repeats: int = 5) -> dict[str, float]:
    """Median by name of the values of `repeats` calls of each function, in alternation (A B A B).

    Other load on the machine then affects all equally. A first round is not counted.
    """
    rounds = [{name: work() for name, work in works.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(measured[name] for measured in rounds[1:]) for name in works}


def alternate(
    ours: Callable[[], float], peer: Callable[[], float], repeats: int
) -> tuple[float, float]:
    """Values of both in the round of the median ratio, after a round that is not counted."""
    return median_round([(ours(), peer()) for _ in range(repeats + 1)][1:])


def median_round(rounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Pair (measured, reference) of the median ratio (of two, the larger).

    More stable than the ratio of two medians, as a slow moment affects both values of a round.
    """
    return sorted(rounds, key=lambda pair: pair[0] / pair[1])[len(rounds) // 2]


def timed(work: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """Function that returns the wall-clock seconds of one call of `work`, the mean of `calls`."""

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls

    return measure


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of `work`, after one run that is not counted."""
    return medians({"work": timed(work)}, repeats)["work"]


def output_of(*words: object) -> str:
    """Run Python with these arguments; returns its output. Raises RuntimeError if it fails."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {done.stderr[-2000:]}")
    return done.stdout


def start(
    study: Callable[..., None],
    description: str | None,
    names: Iterable[str] = (),
    with_json: bool = False,
    extra: Sequence[str] = (),
) -> None:
    """Run the command line of a study.

    names: choices of the command line; `study` gets the chosen names, or all. extra: further
    choices, only by name. with_json: it also gets the path of --json.
    """

    def main() -> None:
        parser = argparse.ArgumentParser(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if known := list(names):
            hint = f"one of {', '.join(known)}; all if none"
            hint += f"; only by name: {', '.join(extra)}" if extra else ""
            choices = [*known, *extra, []]
            parser.add_argument("names", nargs="*", choices=choices, metavar="name", help=hint)
        if with_json:
            parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there")
        # intermixed: names may be on both sides of the flag
        given = vars(parser.parse_intermixed_args())
        chosen = [given.pop("names") or known] if known else []
        study(*chosen, *given.values())

    run(main)


def real_data() -> Path | None:
    """Folder of real radiographs and label tables; None if it is missing."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_REAL_DATA", beside))
    return folder if folder.is_dir() else None


def required_data() -> Path:
    """`real_data`. Raises UserError if it is missing."""
    data = real_data()
    if data is None:
        raise UserError("the real X-rays are missing: set CXR_REAL_DATA to their folder")
    return data
