"""Does the full NIH table with its 112,120 files read, and split, in seconds?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runner import Answer, real_data, seconds
from core.data.split import assign_folds
from core.data.table import read_table

COMMON = 500  # positives from which on a class counts as common


def answers() -> Iterator[Answer]:
    """Seconds of reading (scan of the folder included) and splitting, and the folds' balance."""
    data = real_data()
    if data is None:
        return
    csv = data / "labels" / "nih_chestxray14.csv.gz"
    with tempfile.TemporaryDirectory() as folder:
        for name in pd.read_csv(csv, usecols=["ImageID"])["ImageID"]:
            (Path(folder) / name).touch()
        table = read_table(csv, folder)
        took = seconds(lambda: read_table(csv, folder), repeats=3)
    yield Answer("read_table, 112,120 rows and files", took, "limit", 2, "s", ceiling=1)
    took = seconds(lambda: assign_folds(table.targets, table.patients), repeats=3)
    yield Answer("assign_folds, 30,805 patients, 5 folds", took, "limit", 3, "s", ceiling=1)

    folds = assign_folds(table.targets, table.patients)
    positives = np.array([(table.targets[folds == fold] == 1).sum(axis=0) for fold in range(5)])
    deviation = np.abs(positives / positives.mean(axis=0) - 1).max(axis=0) * 100
    common = positives.sum(axis=0) >= COMMON
    worst = float(deviation[common].max())
    yield Answer(
        "folds: largest deviation, 500 positives or more", worst, "limit", 1, "%", ceiling=1
    )
    hernia = float(deviation[table.class_names.index("Hernia")])
    yield Answer("folds: largest deviation, Hernia (227)", hernia, "limit", 3, "%", ceiling=1)
    patients = pd.DataFrame({"patient": table.patients, "fold": folds})
    shared = int((patients.groupby("patient")["fold"].nunique() > 1).sum())
    # a ratio needs a limit above 0
    yield Answer(
        "folds: patients in two folds", shared, "limit (fewer than one)", 0.5, "", ceiling=1
    )
