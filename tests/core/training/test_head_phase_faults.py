"""A head phase whose features are kept, and a stop, a NaN, or a disk that is too small."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import core.training.feature_cache
from core.data.loading.fold_data import FoldData
from core.errors import UserError
from core.runs.log import FoldLog
from core.training.feature_cache import FeatureCache
from tests.helpers.training.head_phase_runs import (
    ACCUMULATE,
    BATCH,
    UPDATES,
    assert_same,
    features_by_image,
    fold_of,
    train,
    watched,
)


@pytest.fixture
def fold(phantom: Path) -> FoldData:
    return fold_of(phantom)


@pytest.mark.parametrize("stop_at", [UPDATES + 2, 3 * UPDATES + 4])
def test_a_stopped_phase_goes_on_to_the_same_bits(
    stop_at: int, fold: FoldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second kept pass, and in epochs that use them both."""
    undisturbed = train(fold, tmp_path / "whole", 2, ema=True)
    monkeypatch.setattr(FoldLog, "advance", stopping_at(FoldLog.advance, stop_at))
    with pytest.raises(SystemExit):
        train(fold, tmp_path / "stopped", 2, ema=True)
    monkeypatch.undo()
    assert_same(train(fold, tmp_path / "stopped", 2, ema=True), undisturbed)


def test_a_stop_while_kept_features_are_made_again_loses_nothing(
    fold: FoldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = train(fold, tmp_path / "whole", 2)
    with monkeypatch.context() as patch:
        patch.setattr(FoldLog, "advance", stopping_at(FoldLog.advance, 2 * UPDATES + 2))
        with pytest.raises(SystemExit):
            train(fold, tmp_path / "stopped", 2)
    path = undisturbed.folder.parent / "stopped" / "toy_fold1.state.safetensors"
    state = path.read_bytes()
    with monkeypatch.context() as patch:
        # the sixth batch that is written, long before an update
        patch.setattr(FeatureCache, "write", stopping_at(FeatureCache.write, 6))
        with pytest.raises(SystemExit):
            train(fold, tmp_path / "stopped", 2)
    assert path.read_bytes() == state
    assert_same(train(fold, tmp_path / "stopped", 2), undisturbed)


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
    assert f"loss was not finite at update {3 * UPDATES + 3} (fold 1, epoch 4;" in str(
        refused.value
    )
    model = watched(fold)
    model.load_state_dict(undisturbed.weights)
    rows = features_by_image(model.to(memory_format=torch.channels_last), fold, 1)
    update = undisturbed.heads_inputs[bad - ACCUMULATE : bad]
    for one in torch.cat(update):
        assert fold.table.ids[rows[one.contiguous().numpy().tobytes()]] in str(refused.value)
    assert str(refused.value).count(".png") == BATCH * ACCUMULATE


# --- room on the disk ---------------------------------------------------------------------------


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_too_small_is_told_and_changes_nothing(
    fold: FoldData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact = train(fold, tmp_path / "exact", 0)
    capsys.readouterr()
    # two passes of 48 images, and two views of 12, of 8 features in four bytes
    training, validation = 2 * 48 * 8 * 4, 2 * 12 * 8 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9000, 8000, 800))
    assert_same(train(fold, tmp_path / "small", 2), exact)
    printed = capsys.readouterr().out
    for what, needed in (("training", training), ("validation", validation)):
        assert printed.count(f"of the {what} images would need {needed / 1e9:.3g} GB in ") == 1
    assert "where 8e-07 GB are free" in printed


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be reserved")
def test_a_disk_that_fills_up_at_that_moment_is_as_one_that_is_too_small(
    fold: FoldData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exact = train(fold, tmp_path / "exact", 0)
    monkeypatch.setattr(core.training.feature_cache.os, "posix_fallocate", full)
    assert_same(train(fold, tmp_path / "full", 2), exact)
    assert "are computed anew in each head epoch" in capsys.readouterr().out
