"""Head phase with cached features: results, and a stop, a NaN or a full disk.

The truth for a phase that keeps enough views is the same phase without a cache, to the last bit.
"""

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

import core.training.feature_cache
from core.data.loading.fold_data import FoldData
from core.errors import UserError
from core.runs.log import FoldLog
from core.training.feature_cache import FeatureCache
from core.training.frozen_backbone import FrozenBackbone
from core.training.optimizer import Phase
from tests.helpers.training.head_phase_runs import (
    ACCUMULATE,
    BATCH,
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
        (2, 2, 1, {"tta": False}),
        (4, 4, 2, {"ema": True}),
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


def test_a_changing_moving_average_is_predicted_again(fold: FoldData, tmp_path: Path) -> None:
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


# --- a stop, a NaN, and a disk that is too small -----------------------------------------------


@pytest.mark.parametrize("stop_at", [UPDATES + 2, 2 * UPDATES + 2])
def test_a_stopped_phase_resumes_to_the_same_bits(
    stop_at: int, fold: FoldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second kept pass, and in the first that is not computed; then while what was kept is
    computed again."""
    undisturbed = train(fold, tmp_path / "whole", 2, ema=True)
    with monkeypatch.context() as patch:
        patch.setattr(FoldLog, "advance", stopping_at(FoldLog.advance, stop_at))
        with pytest.raises(SystemExit):
            train(fold, tmp_path / "stopped", 2, ema=True)
    path = undisturbed.folder.parent / "stopped" / "toy_fold1.state.safetensors"
    state = path.read_bytes()
    with monkeypatch.context() as patch:
        # the sixth batch that is written, long before an update
        patch.setattr(FeatureCache, "write", stopping_at(FeatureCache.write, 6))
        with pytest.raises(SystemExit):
            train(fold, tmp_path / "stopped", 2, ema=True)
    assert path.read_bytes() == state
    assert_same(train(fold, tmp_path / "stopped", 2, ema=True), undisturbed)


def stopping_at(function: Callable[..., None], call: int) -> Callable[..., None]:
    """`function`, with a SIGTERM before that call of it."""
    calls = 0

    def stop(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        function(*arguments)

    return stop


def test_a_loss_that_is_not_finite_names_the_images_of_a_kept_batch(
    fold: FoldData, tmp_path: Path
) -> None:
    """The second batch of the third update of the fourth epoch, that uses the second's features."""
    bad = (3 * UPDATES + 2) * ACCUMULATE + 2
    undisturbed = train(fold, tmp_path / "whole", 2)
    with pytest.raises(UserError) as refused:
        train(fold, tmp_path / "out", 2, spoil=bad)
    sentence = str(refused.value)
    assert f"loss was not finite at update {3 * UPDATES + 3} (fold 1, epoch 4;" in sentence
    model = watched(fold)
    model.load_state_dict(undisturbed.weights)
    rows = features_by_image(model.to(memory_format=torch.channels_last), fold, 1)
    update = undisturbed.heads_inputs[bad - ACCUMULATE : bad]
    for one in torch.cat(update):
        assert fold.table.ids[rows[one.contiguous().numpy().tobytes()]] in sentence
    assert sentence.count(".png") == BATCH * ACCUMULATE


@pytest.mark.parametrize("kind", ["small", "fills up"])
def test_a_disk_without_space_is_reported_and_changes_nothing(
    kind: str,
    fold: FoldData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact = train(fold, tmp_path / "exact", 0)
    capsys.readouterr()
    if kind == "small":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=800))
    else:
        full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        monkeypatch.setattr(core.training.feature_cache.os, "posix_fallocate", full, raising=False)
    assert_same(train(fold, tmp_path / "small", 2), exact)
    printed = capsys.readouterr().out
    assert "are computed in each head epoch" in printed
    if kind == "small":
        assert "where 8e-07 GB are free" in printed
        # two passes of 48 images, and two views of 12, of 8 features in four bytes
        for what, needed in (("training", 2 * 48 * 8 * 4), ("validation", 2 * 12 * 8 * 4)):
            assert printed.count(f"of the {what} images would need {needed / 1e9:.3g} GB in ") == 1
