"""A head phase whose features are kept: what it computes, and on what it trains.

The truth for a phase that keeps enough views is the same phase without any kept, to the last bit.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from core.data.loading.fold_data import FoldData
from core.training.frozen_backbone import FrozenBackbone
from core.training.optimizer import Phase
from tests.helpers.training.head_phase_runs import (
    ACCUMULATE,
    HEAD,
    UPDATES,
    assert_same,
    features_by_image,
    fold_of,
    train,
    watched,
)
from tests.helpers.training.toy_model import toy_run


@pytest.fixture
def fold(phantom: Path) -> FoldData:
    return fold_of(phantom)


# --- enough views: nothing but time may differ --------------------------------------------------


@pytest.mark.parametrize(("views", "maps"), [(5, False), (9, True)], ids=["pooled", "maps"])
def test_with_a_view_for_each_epoch_all_bits_are_those_of_exact(
    views: int, maps: bool, fold: FoldData, tmp_path: Path
) -> None:
    exact = train(fold, tmp_path / "exact", 0, maps=maps)
    assert_same(train(fold, tmp_path / "kept", views, maps=maps), exact)
    # and there was something to learn
    rows = pd.read_csv(exact.folder / "metrics.csv")
    assert rows["train_loss"].iloc[-1] < rows["train_loss"].iloc[0]


@pytest.mark.parametrize(
    ("views", "training", "validation", "options"),
    [
        (0, 5, 5 * 2, {}),
        (1, 1, 2, {}),
        (2, 2, 2, {}),
        (2, 2, 1, {"tta": False}),
        (2, 2, 2, {"ema": True}),
        (4, 4, 2, {}),
        (5, 5, 2, {}),
    ],
    ids=str,
)
def test_how_often_the_backbone_computes(
    views: int,
    training: int,
    validation: int,
    options: dict[str, bool],
    fold: FoldData,
    tmp_path: Path,
) -> None:
    """Passes over the images of five epochs; the ten to validate are three batches."""
    # an average is a copy with the hook that counts
    computed = train(fold, tmp_path / "out", views, **options).computed
    assert computed == training * UPDATES * ACCUMULATE + validation * 3


def test_one_epoch_keeps_nothing(
    fold: FoldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("nothing that is kept here would be used again")

    monkeypatch.setattr("core.training.frozen_backbone.FeatureCache", fail)
    train(fold, tmp_path / "out", 2, replace(HEAD, epochs=1))


def test_an_average_that_still_moves_is_predicted_anew(fold: FoldData, tmp_path: Path) -> None:
    """After a phase of the whole model its backbone is not the model's, and follows it."""
    phases = (Phase("all", 1, {"backbone": 1e-2, "head": 1e-2}), replace(HEAD, epochs=3))
    exact, kept = (
        train(fold, tmp_path / name, views, *phases, ema=True)
        for name, views in (("e", 0), ("k", 3))
    )
    assert_same(kept, exact)


# --- fewer views --------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", [False, True], ids=["pooled", "maps"])
def test_a_later_epoch_trains_on_the_features_of_an_earlier_one_in_another_order(
    maps: bool, fold: FoldData, tmp_path: Path
) -> None:
    run, per_epoch = train(fold, tmp_path / "out", 2, maps=maps), UPDATES * ACCUMULATE
    model = watched(fold, maps=maps)
    model.load_state_dict(run.weights)
    model.to(memory_format=torch.channels_last)
    epochs = [
        [
            [one.contiguous().numpy().tobytes() for one in batch]
            for batch in run.heads_inputs[per_epoch * epoch : per_epoch * (epoch + 1)]
        ]
        for epoch in range(5)
    ]
    images = [Counter(one for batch in epoch for one in batch) for epoch in epochs]
    for epoch in range(2):
        # each draw of an epoch has an augmentation of its own
        assert set(images[epoch]) == set(features_by_image(model, fold, epoch))
    assert images[0] != images[1]
    assert images[2] == images[4] == images[0]
    assert images[3] == images[1]
    batches = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert not batches[2] & batches[0]
    assert not batches[4] & batches[2]
    assert not batches[3] & batches[1]


def test_rows_and_targets_stay_with_their_features(fold: FoldData, tmp_path: Path) -> None:
    model = watched(fold)
    model.backbone.eval()
    source = FrozenBackbone(
        run=toy_run(fold, tmp_path, accumulate=ACCUMULATE),
        model=model,
        data=fold,
        validation=fold.validation(),
        epochs=range(1, 5),
        passes=2,
        say=pytest.fail,
        pause=pytest.fail,
    )
    batches = list(source.batches(1, 5, 0))
    assert len(batches) == 4 * UPDATES * ACCUMULATE
    known = [features_by_image(model, fold, epoch) for epoch in (1, 2, 1, 2)]
    for number, batch in enumerate(batches):
        rows = known[number // (UPDATES * ACCUMULATE)]
        found = [rows[one.contiguous().numpy().tobytes()] for one in batch.images]
        assert batch.rows.tolist() == found
        np.testing.assert_array_equal(batch.targets.numpy(), fold.table.targets[found])
