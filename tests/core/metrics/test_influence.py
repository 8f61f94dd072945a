"""Influence of patients on the error of AP and AUROC, against the jackknife."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from core.metrics.influence import AP, AUROC, RAISED, cluster_indices, influence
from core.metrics.intervals import mean_losses
from tests.helpers.synthetic.tables import table


def without_each(targets: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """AP and AUROC by scikit-learn without each patient, (2, K)."""
    found = []
    for patient in range(clusters.max() + 1):
        rest = (clusters != patient) & ~np.isnan(targets)
        y, p = targets[rest], scores[rest]
        found.append([average_precision_score(y, p), roc_auc_score(y, p)])
    return np.array(found).T


@pytest.mark.parametrize("levels", [None, 12])
def test_it_is_what_leaving_out_each_patient_shows(levels: int | None) -> None:
    targets, scores = table(images=400, prevalences=(0.1, 0.3), levels=levels)
    targets[np.random.default_rng(3).random(targets.shape) < 0.1] = np.nan
    clusters = np.random.default_rng(2).integers(0, 120, size=400)
    found = influence(targets, scores, clusters, parts=1000, seed=0)
    for column in range(2):
        without = without_each(targets[:, column], scores[:, column], clusters)
        known = ~np.isnan(targets[:, column])
        y, p = targets[known, column], scores[known, column]
        values = found.values[:, column]
        expected = average_precision_score(y, p), roc_auc_score(y, p)
        np.testing.assert_allclose(values, expected, atol=1e-12)
        falls = values[:, None] - without
        for metric in (AP, AUROC):
            moves = found.moves[metric, :, column]
            assert np.corrcoef(moves, falls[metric])[0, 1] > 0.97
            spread = np.sqrt((falls[metric] ** 2).sum())
            assert np.sqrt((moves**2).sum()) == pytest.approx(spread, rel=0.1)
        bias = (clusters.max()) * (without[AP].mean() - values[AP])
        assert found.bias[AP, column] == pytest.approx(RAISED * bias, rel=0.01)
        assert found.bias[AUROC, column] == 0


def test_counts_of_patients_and_degrees_of_freedom() -> None:
    # A: positives of three patients, who have 1, 1 and 2 of them; B: of one
    targets = np.zeros((40, 2))
    targets[[0, 1, 2, 3], 0] = 1
    targets[0, 1] = 1
    clusters = np.r_[0, 1, 2, 2, np.arange(3, 39)]
    found = influence(targets, np.linspace(1, 0, 80).reshape(40, 2), clusters, 10, 0)
    assert found.patients.tolist() == [3, 1]
    np.testing.assert_allclose(found.freedom, [4**2 / (1 + 1 + 4) - 1, 0])
    reverse = influence(1 - targets, np.linspace(1, 0, 80).reshape(40, 2), clusters, 10, 0)
    assert reverse.patients.tolist() == [36, 38]
    assert reverse.fewest.tolist() == [3, 1]


def test_a_perfect_ranking_of_few_positives_has_a_variance() -> None:
    targets = np.r_[np.ones(10), np.zeros(990)][:, None]
    found = influence(targets, np.linspace(1, 0, 1000)[:, None], np.arange(1000), 10, 0)
    assert found.values[:, 0].tolist() == [1, 1]
    assert (found.moves == 0).all()
    assert (found.unseen > 0).all()


def test_the_model_of_auroc_is_that_of_normal_scores() -> None:
    """Where nothing varies, what is added is the weight times the model's variance."""
    auroc, patients = (10 + 0.025) / (10 + 0.05), 10
    cut = norm.ppf(auroc)
    both = multivariate_normal.cdf([cut, cut], cov=[[1, 0.5], [0.5, 1]])
    model = (both - auroc**2) * (1 / patients + 1 / 990)
    targets = np.r_[np.ones(10), np.zeros(990)][:, None]
    found = influence(targets, np.linspace(1, 0, 1000)[:, None], np.arange(1000), 10, 0)
    assert found.unseen[AUROC, 0] == pytest.approx(model * 4 / (4 + 10), rel=1e-3)


def test_the_difference_of_a_model_to_itself_is_exactly_zero() -> None:
    targets, scores = table()
    found = influence(targets, scores, np.arange(len(targets)), 10, 0)
    difference = found.minus(found)
    assert (difference.values == 0).all()
    assert (difference.moves == 0).all()
    assert (difference.unseen == 0).all()


def test_image_without_patient_is_its_own_cluster() -> None:
    named = pd.Series(["p1", None, "p2", "p1", np.nan])
    clusters = cluster_indices(named, 5)
    assert clusters[0] == clusters[3]
    assert len(np.unique(clusters)) == 4
    np.testing.assert_array_equal(cluster_indices(None, 3), [0, 1, 2])


def test_the_order_of_images_does_not_matter() -> None:
    targets, scores = table(images=300)
    patients = np.random.default_rng(2).integers(0, 90, size=300)
    order = np.random.default_rng(4).permutation(300)
    first = influence(targets, scores, cluster_indices(patients, 300), 20, 1)
    second = influence(targets[order], scores[order], cluster_indices(patients[order], 300), 20, 1)
    for name in ("values", "moves", "bias", "unseen", "freedom"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-14)
    other = influence(targets, scores, cluster_indices(patients, 300), 20, 2)
    assert not np.array_equal(first.bias, other.bias)


def test_a_mean_loss_and_its_error_by_hand() -> None:
    """Of one class and one image a patient it is Student's interval of the mean, for many."""
    losses = np.random.default_rng(0).normal(0.3, 1, size=(500, 1))
    found = mean_losses(losses, np.arange(500))
    assert found.values == pytest.approx(losses.mean())
    error = losses.std() / np.sqrt(499)
    np.testing.assert_allclose(np.sqrt(found.variance), error, rtol=2e-3)
    low, high = found.unbounded_interval()
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.01)
    assert np.isnan(mean_losses(losses[:49], np.arange(49)).unbounded_interval()).all()
    # unknown labels count in no class, and a class without one not at all
    two = np.concatenate([losses, losses, np.full((500, 1), np.nan)], axis=1)
    two[::2, 1] = np.nan
    found = mean_losses(two, np.arange(500))
    assert found.values == pytest.approx((losses.mean() + losses[1::2].mean()) / 2)
