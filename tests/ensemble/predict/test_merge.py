"""Each merge against NumPy and SciPy, written out."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logit

from core.data.tables.images_to_predict import view_groups
from core.errors import UserError
from ensemble.predict.merge import merge_copies, merge_models, merge_studies, model_shares, ranks

RANDOM = np.random.default_rng(0)
TABLES = RANDOM.random((5, 7, 3))  # models or views, images, classes
TABLES[0, 0, 0], TABLES[1, 0, 0], TABLES[2, 1, 1] = 0, 1, 0
SHARES = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
CLIPPED = np.clip(TABLES, 1e-6, 1 - 1e-6)

OF_VIEWS = {
    "mean": TABLES.mean(axis=0),
    "max": TABLES.max(axis=0),
    "gmean": stats.gmean(CLIPPED, axis=0),
    "median": np.median(TABLES, axis=0),
    "logit_mean": expit(logit(CLIPPED).mean(axis=0)),
}
OF_MODELS = {
    "weighted_mean": np.average(TABLES, axis=0, weights=SHARES),
    "logit_mean": expit(np.average(logit(CLIPPED), axis=0, weights=SHARES)),
    "gmean": np.prod(CLIPPED ** SHARES[:, None, None], axis=0),
    "median": np.median(TABLES, axis=0),
    "max": TABLES.max(axis=0),
}


@pytest.mark.parametrize("mode", OF_VIEWS)
def test_views(mode: str) -> None:
    merged = merge_copies(torch.from_numpy(TABLES), mode).numpy()
    np.testing.assert_allclose(merged, OF_VIEWS[mode], atol=1e-12)
    # an even number of views, of which one is the other
    even = merge_copies(torch.from_numpy(TABLES[:4]), "median").numpy()
    np.testing.assert_allclose(even, np.median(TABLES[:4], axis=0), atol=1e-12)
    one = merge_copies(torch.from_numpy(CLIPPED[:1]), mode).numpy()
    np.testing.assert_allclose(one, CLIPPED[0], atol=1e-12)


@pytest.mark.parametrize("mode", OF_MODELS)
def test_models(mode: str) -> None:
    np.testing.assert_allclose(merge_models(TABLES, SHARES, mode), OF_MODELS[mode], atol=1e-12)


@pytest.mark.parametrize("mode", OF_MODELS)
def test_a_model_that_lacks_a_class_is_left_out_of_it(mode: str) -> None:
    lacking = TABLES.copy()
    lacking[3, :, 1] = np.nan
    merged = merge_models(lacking, SHARES, mode)
    rest = [0, 1, 2, 4]
    shares = SHARES[rest] / SHARES[rest].sum()
    without = merge_models(TABLES[rest], shares, mode)
    np.testing.assert_allclose(merged[:, 1], without[:, 1], atol=1e-12)
    np.testing.assert_allclose(merged[:, [0, 2]], OF_MODELS[mode][:, [0, 2]], atol=1e-12)


def test_ranks_share_ties_and_run_up_to_one() -> None:
    table = np.array([[0.3, np.nan], [0.1, np.nan], [0.3, np.nan], [0.9, np.nan]])
    found = ranks(table)
    assert found[:, 0].tolist() == [2.5 / 4, 1 / 4, 2.5 / 4, 1]
    assert np.isnan(found[:, 1]).all()


def test_weights_become_parts_of_one() -> None:
    np.testing.assert_allclose(model_shares([1, 1.5], 2), [0.4, 0.6])
    np.testing.assert_allclose(model_shares((), 4), 0.25)
    np.testing.assert_allclose(model_shares([1e308, 1e308, 0], 3), [0.5, 0.5, 0])
    for weights in ([1, -1], [0, 0], [float("nan"), 1], [float("inf"), 1], [1], [1, 2, 3]):
        with pytest.raises(UserError):
            model_shares(weights, 2)


def test_studies_are_means_within_and_then_over_groups_of_views() -> None:
    views = np.array(["AP", "PA", "LL", "LATERAL", "PA", ""], dtype=object)
    studies = np.array([0, 0, 0, 1, 1, 2])
    table = np.arange(12, dtype=float).reshape(6, 2)
    merged = merge_studies(table, studies, view_groups(views, 6))
    expected = [((table[0] + table[1]) / 2 + table[2]) / 2, (table[3] + table[4]) / 2, table[5]]
    np.testing.assert_allclose(merged, expected)
    plain = merge_studies(table, studies, view_groups(None, 6))
    np.testing.assert_allclose(plain, [table[:3].mean(0), table[3:5].mean(0), table[5]])
