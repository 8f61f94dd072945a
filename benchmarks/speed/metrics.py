"""Do 1,000 resamples of the full NIH table take seconds, and what would scikit-learn take?

About a minute on two cores, of which one is used; the scores are synthetic. scikit-learn's loop is
the fastest of those that were tried: its metrics are called for all classes at once, on the images
that a resample drew, with how often it drew them as weights. Repeating rows took 1.5 times as long,
all images with weights 1.7 times.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.runner import Answer, middle, real_data, timed
from core.metrics import evaluate
from core.metrics.bootstrap import bootstrap, cluster_indices, resampled_weights

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
    """Both take turns; the round with the median ratio counts."""
    targets, probabilities, patients = table
    names = [str(number) for number in range(targets.shape[1])]
    evaluation = partial(evaluate, targets, probabilities, names, patients=patients)
    own = timed(partial(evaluation, resamples=resamples, seed=SEED))
    loop = timed(lambda: scikit_learn(table, looped))
    took, peer = middle([(own(), loop() * resamples / looped) for _ in range(ROUNDS)])
    what = f"{resamples:,} resamples of AP and AUROC, {len(targets):,} x {len(names)}"
    yield Answer.limited(what, "s", took, 60)
    speeds = resamples / took, resamples / peer
    yield Answer("resamples a second", "/s", "scikit-learn in a loop", *speeds, floor=15)
    worst = float(np.abs(ours(table, looped) - scikit_learn(table, looped)).max())
    yield Answer.limited("largest difference from scikit-learn's values", "", worst, 1e-9)


def ours(table: Table, resamples: int) -> np.ndarray:
    """AP and AUROC of the first resamples, (2, R, C)."""
    clusters = cluster_indices(table.patients, len(table.targets))
    return bootstrap(table.targets, (table.probabilities,), clusters, resamples, SEED)


def scikit_learn(table: Table, resamples: int) -> np.ndarray:
    """The same by scikit-learn, (2, R, C): one call a metric and resample."""
    clusters = cluster_indices(table.patients, len(table.targets))
    metrics = (average_precision_score, roc_auc_score)
    scores: list[list[np.ndarray]] = [[], []]
    for chunk in resampled_weights(clusters, resamples, SEED):
        for weights in chunk:
            drawn = np.flatnonzero(weights)
            y, p = table.targets[drawn], table.probabilities[drawn]
            for column, metric in zip(scores, metrics, strict=True):
                column.append(metric(y, p, average=None, sample_weight=weights[drawn]))
    return np.array(scores)


def synthetic_scores(targets: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) that depend on the labels and on each other, a third tied."""
    random = np.random.default_rng(SEED)
    common = random.normal(size=(len(targets), 1))
    scores = expit(1.4 * targets + 0.5 * common + random.normal(size=targets.shape) - 2)
    scores[:, ::3] = scores[:, ::3].round(3)
    return scores
