"""Do 1,000 resamples of the full NIH table take seconds, and what would scikit-learn take?

About a minute on two cores, of which one is used. scikit-learn's loop is the fastest of those that
were tried: its metrics are asked for all classes at once, for the images that a resample drew, with
how often it drew them as weights. Repeating rows took 1.5 times as long, all images with weights
1.7 times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.runner import Answer, middle, real_data, timed
from core.metrics import evaluate
from core.metrics.bootstrap import bootstrap, cluster_indices, resampled_weights

RESAMPLES, ROUNDS = 1000, 3
LOOPED = 4  # resamples of scikit-learn's loop in a round; the seconds of RESAMPLES are scaled
IMAGES, CLASSES, PATIENTS = 112_120, 15, 30_805
SEED = 0


@dataclass(frozen=True, eq=False)
class Table:
    """What is scored."""

    targets: np.ndarray
    """(N, C) of 1 and 0"""
    probabilities: np.ndarray
    """(N, C)"""
    patients: np.ndarray
    """(N,)"""


def answers() -> Iterator[Answer]:
    """Seconds against the limit, speed against scikit-learn's, and whether the values agree."""
    data = real_data()
    yield from compare(drawn_table() if data is None else nih_table(data), RESAMPLES, LOOPED)


def compare(table: Table, resamples: int, looped: int) -> Iterator[Answer]:
    """Both take turns; the round with the median ratio counts."""
    names = [str(number) for number in range(table.targets.shape[1])]

    def evaluation() -> None:
        evaluate(
            table.targets,
            table.probabilities,
            names,
            patients=table.patients,
            resamples=resamples,
            seed=SEED,
        )

    loop = timed(lambda: scikit_learn(table, looped))
    rounds = [(timed(evaluation)(), loop() * resamples / looped) for _ in range(ROUNDS)]
    own, peer = middle(rounds)
    shape = f"{len(table.targets):,} x {len(names)}"
    yield Answer.limited(f"{resamples:,} resamples of AP and AUROC, {shape}", "s", own, 60)
    speeds = resamples / own, resamples / peer
    yield Answer("resamples a second", "/s", "scikit-learn in a loop", *speeds, floor=15)
    worst = float(np.abs(ours(table, looped) - scikit_learn(table, looped)).max())
    yield Answer.limited("largest difference from scikit-learn's values", "", worst, 1e-9)


def ours(table: Table, resamples: int) -> np.ndarray:
    """AP and AUROC of the first resamples, (2, R, C)."""
    clusters = cluster_indices(table.patients, len(table.targets))
    return bootstrap(table.targets, (table.probabilities,), clusters, resamples, SEED)


def scikit_learn(table: Table, resamples: int) -> np.ndarray:
    """The same by scikit-learn, (2, R, C): one call a metric and resample."""
    scores: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    clusters = cluster_indices(table.patients, len(table.targets))
    for chunk in resampled_weights(clusters, resamples, SEED):
        for weights in chunk:
            drawn = np.flatnonzero(weights)
            y, p = table.targets[drawn], table.probabilities[drawn]
            for column, metric in zip(
                scores, (average_precision_score, roc_auc_score), strict=True
            ):
                column.append(metric(y, p, average=None, sample_weight=weights[drawn]))
    return np.array(scores)


def nih_table(data: Path) -> Table:
    """The labels and patients of NIH with synthetic scores."""
    table = pd.read_csv(data / "labels" / "nih_chestxray14.csv.gz")
    targets = table.drop(columns=["ImageID", "PatientID"]).to_numpy(float)
    return Table(targets, synthetic_scores(targets), table["PatientID"].to_numpy())


def drawn_table() -> Table:
    """A long tail of the same shape, with prevalences of 50 % to .2 %."""
    random = np.random.default_rng(SEED)
    prevalences = np.geomspace(0.5, 0.002, CLASSES)
    targets = (random.random((IMAGES, CLASSES)) < prevalences).astype(float)
    return Table(targets, synthetic_scores(targets), random.integers(PATIENTS, size=IMAGES))


def synthetic_scores(targets: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) that depend on the labels and on each other, a third tied."""
    random = np.random.default_rng(SEED)
    common = random.normal(size=(len(targets), 1))
    scores = expit(1.4 * targets + 0.5 * common + random.normal(size=targets.shape) - 2)
    scores[:, ::3] = scores[:, ::3].round(3)
    return scores
