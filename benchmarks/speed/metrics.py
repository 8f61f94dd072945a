"""Time of the intervals for the full NIH table, against scikit-learn. A minute on one core.

The scores are synthetic. The peer is the usual bootstrap of 1,000 resamples of patients, in the
fastest loop that was tried: scikit-learn's metrics for all classes at once, on the drawn images,
weighted by how often they were drawn. Repeating rows took 1.5 times as long, all images with
weights 1.7 times.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.runner import Answer, median_round, real_data, timed
from core.metrics import evaluate
from core.metrics.influence import cluster_indices

RESAMPLES, ROUNDS = 1000, 3
LOOPED = 4  # resamples of scikit-learn's loop in a round; the seconds of RESAMPLES are scaled
SEED = 0


class Table(NamedTuple):
    """Labels 1 and 0 (N, C), probabilities (N, C) and patients (N,)."""

    targets: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray


def answers(_: Path) -> Iterator[Answer]:
    if data := real_data():
        table = pd.read_csv(data / "labels" / "nih_chestxray14.csv.gz")
        targets = table.drop(columns=["ImageID", "PatientID"]).to_numpy(float)
        nih = Table(targets, synthetic_scores(targets), table["PatientID"].to_numpy())
        yield from compare(nih, RESAMPLES, LOOPED)


def compare(table: Table, resamples: int, looped: int) -> Iterator[Answer]:
    """Measure both in alternation; the round with the median ratio counts."""
    targets, probabilities, patients = table
    names = [str(number) for number in range(targets.shape[1])]
    own = timed(partial(evaluate, targets, probabilities, names, patients=patients))
    loop = timed(lambda: scikit_learn(table, looped))
    took, peer = median_round([(own(), loop() * resamples / looped) for _ in range(ROUNDS)])
    what = f"intervals of AP and AUROC, {len(targets):,} x {len(names)}"
    yield Answer.limited(what, "s", took, 60)
    speeds = 1 / took, 1 / peer
    yield Answer("tables a second", "/s", "scikit-learn in a loop", *speeds, floor=15)
    worst = float(np.abs(ours(table) - scores(targets, probabilities)).max())
    yield Answer.limited("largest difference from scikit-learn's values", "", worst, 1e-9)


def ours(table: Table) -> np.ndarray:
    """Our AP and AUROC, (2, C)."""
    names = [str(number) for number in range(table.targets.shape[1])]
    result = evaluate(table.targets, table.probabilities, names, resamples=0)
    return result.per_class[["ap", "auroc"]].to_numpy().T


def scikit_learn(table: Table, resamples: int) -> np.ndarray:
    """AP and AUROC by scikit-learn for R resamples of patients, (2, R, C)."""
    clusters, random = (
        cluster_indices(table.patients, len(table.targets)),
        np.random.default_rng(SEED),
    )
    number, found = int(clusters.max()) + 1, []
    for _ in range(resamples):
        weights = np.bincount(random.integers(number, size=number), minlength=number)[clusters]
        drawn = np.flatnonzero(weights)
        found.append(scores(table.targets[drawn], table.probabilities[drawn], weights[drawn]))
    return np.stack(found, axis=1)


def scores(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """AP and AUROC by scikit-learn, (2, C): one call a metric."""
    return np.array(
        [
            metric(targets, probabilities, average=None, sample_weight=weights)
            for metric in (average_precision_score, roc_auc_score)
        ]
    )


def synthetic_scores(targets: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) that depend on the labels and on each other, a third tied."""
    random = np.random.default_rng(SEED)
    common = random.normal(size=(len(targets), 1))
    scores = expit(1.4 * targets + 0.5 * common + random.normal(size=targets.shape) - 2)
    scores[:, ::3] = scores[:, ::3].round(3)
    return scores
