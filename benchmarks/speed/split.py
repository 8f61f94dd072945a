"""Time to read, split and plan large tables. Two minutes on two cores.

First the NIH table, with a file for each of its 112,120 rows; then tables of 100,000 and 1,000,000
rows made from it, each in a new process to measure its peak memory.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runner import Answer, median_round, output_of, real_data, seconds
from core.data.splits.folds import assign_folds
from core.data.tables import read_table

COMMON = 500  # positives of a common class
FEW, MANY = 100_000, 1_000_000
STEPS = ("read", "split", "plan")
ROUNDS = 3

# reads, splits and plans argv[2] times; prints the sums of seconds, and on Linux the peak memory
# in MB
_MEASURE = """
import json, os, re, sys, time
from core.data.loading.samplers import build_sampler
from core.data.splits.folds import assign_folds
from core.data.tables import read_table

sums = [0.0, 0.0, 0.0]
for _ in range(int(sys.argv[2])):
    times = [time.perf_counter()]
    table = read_table(sys.argv[1], None)
    times.append(time.perf_counter())
    folds = assign_folds(table.targets, table.patients)
    times.append(time.perf_counter())
    build_sampler("class_aware", table.targets[folds != 0], seed=0)(0)
    times.append(time.perf_counter())
    sums = [total + after - before for total, before, after in zip(sums, times, times[1:])]
# not getrusage, which includes the memory of the parent process
status = "/proc/self/status"
if os.path.exists(status):
    sums += [int(found) / 1e3 for found in re.findall(r"VmHWM:\\s+(\\d+)", open(status).read())]
print(json.dumps(sums))
"""


def answers(folder: Path) -> Iterator[Answer]:
    data = real_data()
    if data is None:
        return
    csv, files = data / "labels" / "nih_chestxray14.csv.gz", folder / "files"
    files.mkdir()
    for name in pd.read_csv(csv, usecols=["ImageID"])["ImageID"]:
        (files / name).touch()
    yield from nih(csv, files)
    yield from growth(csv, folder)


def nih(csv: Path, folder: Path) -> Iterator[Answer]:
    """The NIH table, with its files in `folder`."""
    table = read_table(csv, folder)
    took = seconds(lambda: read_table(csv, folder), repeats=3)
    yield Answer.limited("read_table, 112,120 rows and files", "s", took, 2)
    took = seconds(lambda: assign_folds(table.targets, table.patients), repeats=3)
    yield Answer.limited("assign_folds, 30,805 patients, 5 folds", "s", took, 3)
    folds = assign_folds(table.targets, table.patients)
    positives = np.array([(table.targets[folds == fold] == 1).sum(axis=0) for fold in range(5)])
    deviation = np.abs(positives / positives.mean(axis=0) - 1).max(axis=0) * 100
    worst = float(deviation[positives.sum(axis=0) >= COMMON].max())
    yield Answer.limited("folds: largest deviation, 500 positives or more", "%", worst, 1)
    hernia = float(deviation[table.class_names.index("Hernia")])
    yield Answer.limited("folds: largest deviation, Hernia (227)", "%", hernia, 3)
    patients = pd.DataFrame({"patient": table.patients, "fold": folds})
    shared = int((patients.groupby("patient")["fold"].nunique() > 1).sum())
    # a ratio needs a limit above 0
    what, limit = "folds: patients in two folds", "limit (fewer than one)"
    yield Answer(what, "", limit, shared, 0.5, ceiling=1)


def growth(csv: Path, folder: Path) -> Iterator[Answer]:
    """Time of a million rows, each step in alternation with ten times a tenth of them."""
    table = pd.read_csv(csv, dtype=str)
    few, many = (enlarged(table, rows, folder / f"{rows}.csv") for rows in (FEW, MANY))

    def measured(path: Path, times: int) -> list[float]:
        return json.loads(output_of("-c", _MEASURE, path, times))

    rounds = [(measured(many, 1), measured(few, MANY // FEW)) for _ in range(ROUNDS)]
    for place, step in enumerate(STEPS):
        pair = median_round([(large[place], small[place]) for large, small in rounds])
        against = f"{MANY // FEW} x {FEW:,} rows"
        yield Answer(f"{step}, {MANY:,} rows", "s", against, *pair, ceiling=1)
    whole = statistics.median(sum(large[:3]) for large, _ in rounds)
    yield Answer.limited(f"all three, {MANY:,} rows", "s", whole, 60)
    if peaks := [peak for large, _ in rounds for peak in large[3:]]:
        yield Answer.limited(f"peak memory, {MANY:,} rows", "MB", max(peaks), 2000)


def enlarged(table: pd.DataFrame, rows: int, path: Path) -> Path:
    """Write a CSV of `rows` rows; rows beyond the table repeat its labels for new patients."""
    copies = np.arange(rows) // len(table)
    large = table.iloc[np.arange(rows) % len(table)].copy()
    for name in ("ImageID", "PatientID"):
        large[name] = [f"{copy}_{one}" for copy, one in zip(copies, large[name], strict=True)]
    large.to_csv(path, index=False)
    return path
