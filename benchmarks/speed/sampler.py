"""Time and memory of an epoch's plan for 377,110 images, and the accuracy of its draws."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runner import Answer, real_data, seconds
from core.data.loading.samplers import build_sampler

IMAGES, CLASSES = 377_110, 26  # of MIMIC-CXR-JPG, with the labels of CXR-LT 2023
EPOCHS = 10


def answers(_: Path) -> Iterator[Answer]:
    targets = long_tail()
    for name in ("class_aware", "repeat_factor"):
        build = partial(build_sampler, name, targets, seed=0)
        # a new epoch each time
        plans = map(build(), itertools.count())
        for what, work in (("building the sampler", build), ("a plan", partial(next, plans))):
            what = f"{name}: {what}"
            yield Answer.limited(f"{what}, 377,110 x 26", "s", seconds(work), 0.2)
            yield Answer.limited(f"{what}, peak memory", "MB", peak_megabytes(work), 100)
    if data := real_data():
        table = pd.read_csv(data / "labels" / "nih_chestxray14.csv.gz")
        labels = table.drop(columns=["ImageID", "PatientID"]).to_numpy(np.float32)
        worst = largest_deviation(labels) * 100
        yield Answer.limited("repeat_factor on NIH: deviation of a class's draws", "%", worst, 1)


def long_tail() -> np.ndarray:
    """Targets (IMAGES, CLASSES) of independent labels, with prevalences of 40 % to .02 %."""
    random = np.random.default_rng(0)
    columns = [
        random.random(IMAGES) < prevalence for prevalence in np.geomspace(0.4, 2e-4, CLASSES)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def peak_megabytes(work: Callable[[], object]) -> float:
    """Peak memory that `work` allocates, NumPy arrays included."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def largest_deviation(targets: np.ndarray) -> float:
    """Largest |draws / expected - 1| over classes, by the mean of EPOCHS epochs; no NaN."""
    sampler = build_sampler("repeat_factor", targets, seed=0)
    of_class = np.sqrt(0.01 / targets.mean(axis=0, dtype=np.float64)).clip(1, 10)
    factors = np.where(targets == 1, of_class, 1).max(axis=1)
    drawn = sum((targets[sampler(epoch)] == 1).sum(axis=0) for epoch in range(EPOCHS)) / EPOCHS
    expected = factors @ (targets == 1)
    return float(np.abs(drawn / expected - 1).max())
