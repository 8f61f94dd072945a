"""`python -m benchmarks metrics`: what it measures and prints (no check of speed)."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.speed import metrics
from benchmarks.speed.metrics import Table, compare, scikit_learn, synthetic_scores


@pytest.fixture
def small() -> Table:
    targets = (np.random.default_rng(1).random((300, 4)) < 0.3).astype(float)
    return Table(targets, synthetic_scores(targets), np.arange(300) // 3)


def test_the_loop_scores_each_resample_as_its_repeated_rows(small: Table) -> None:
    scores = scikit_learn(small, 5)
    assert scores.shape == (2, 5, 4)
    assert len(np.unique(small.probabilities[:, 0])) < 300  # ties
    random = np.random.default_rng(metrics.SEED)
    names = sorted(range(100), key=str)
    for row in range(5):
        patients = [names[number] for number in random.integers(100, size=100)]
        drawn = np.concatenate([np.arange(3 * one, 3 * one + 3) for one in patients])
        for column in range(4):
            y, p = small.targets[drawn, column], small.probabilities[drawn, column]
            expected = average_precision_score(y, p), roc_auc_score(y, p)
            np.testing.assert_allclose(scores[:, row, column], expected, atol=1e-12)


def test_the_result_is_a_time_a_speed_and_that_both_agree(small: Table) -> None:
    took, speed, same = compare(small, resamples=20, looped=2)
    assert (took.unit, took.reference, took.ceiling) == ("s", 60, 1)
    assert (speed.unit, speed.floor) == ("/s", 15)
    assert speed.measured == pytest.approx(1 / took.measured)
    assert all(math.isfinite(answer.ratio) and answer.ratio > 0 for answer in (took, speed))
    assert same.verdict == "ok"
