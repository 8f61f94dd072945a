"""Each flag of a training is seen to change what it says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Train
from tests.helpers.training.small_run import MODEL, flags

CHANGES = [
    *("--seed 1", "--batch_size 4", "--accumulate 2", "--img_size 40", "--loss bce"),
    *("--loss robust_asl", "--loss weighted_bce", "--loss focal", "--loss cb_focal"),
    *("--loss ldam", "--loss ldam_drw", "--loss distribution_balanced", "--loss two_way"),
    *("--loss_options gamma_neg=1 margin=0.2", "--logit_adjust 0", "--label_smooth 0.1"),
    *("--drw_epoch 2", "--warmup_head_epochs 0", "--warmup_head_lr 0.1"),
    *("--warmup_epochs 0", "--backbone_lr 0.01", "--head_lr 0.01", "--weight_decay 20"),
    *("--clip_norm 0.001", "--drop_rate 0", "--no-ema"),
    *("--ema_decay 0.1", "--no-tta", "--labels Effusion,Mass", "--patient_column none"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_flag_changes_the_result(
    change: str, finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    code, _, error = train(*flags(phantom, out, "--run_folds", 1, *change.split()))
    assert code == 0, error
    name = f"{MODEL}_fold1_val.csv"
    assert (out / name).read_bytes() != (finished[0] / name).read_bytes()


def test_pos_weight_changes_bce(phantom: Path, tmp_path: Path, train: Train) -> None:
    for name, more in (("plain", ()), ("weighted", ("--pos_weight",))):
        options = ("--run_folds", 1, "--loss", "bce", *more)
        assert train(*flags(phantom, tmp_path / name, *options))[0] == 0
    losses = [
        pd.read_csv(tmp_path / name / "metrics.csv")["train_loss"] for name in ("plain", "weighted")
    ]
    assert (losses[1] > losses[0]).all()


def test_drop_path_and_grad_checkpointing(phantom: Path, tmp_path: Path, train: Train) -> None:
    """One changes the result, the other only where activations are kept (without batch norm)."""
    predictions = []
    changes = {"plain": "", "dropped": "--drop_path_rate 0.5", "saved": "--grad_checkpointing"}
    for name, change in changes.items():
        options = ("--run_folds", 1, "--model", "test_convnext", *change.split())
        assert train(*flags(phantom, tmp_path / name, *options))[0] == 0
        path = tmp_path / name / "test_convnext_fold1_val.csv"
        predictions.append(pd.read_csv(path, index_col=0).to_numpy())
    plain, dropped, checkpointed = predictions
    assert np.abs(plain - dropped).max() > 1e-3
    np.testing.assert_allclose(plain, checkpointed, atol=1e-5)


def test_the_head_phase_keeps_as_many_views_as_it_is_told(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    """With one for each epoch it is the exact phase, to the last bit; with fewer it is another."""
    found = []
    for phase in ("exact", "cached --head_views 3", "cached --head_views 1"):
        out = tmp_path / phase.replace(" ", "_")
        options = ("--run_folds", 1, "--warmup_head_epochs", 3, "--head_phase", *phase.split())
        assert train(*flags(phantom, out, *options))[0] == 0
        found.append([(out / f).read_bytes() for f in ("metrics.csv", f"{MODEL}_fold1_val.csv")])
    exact, enough, fewer = found
    assert enough == exact
    assert fewer[0] != exact[0]
    assert fewer[1] != exact[1]


def losses_of(out: Path) -> np.ndarray:
    return pd.read_csv(out / "metrics.csv")["train_loss"].to_numpy()


def test_drw_begins_in_its_epoch(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    """The first of three epochs is as without it, the second is not."""
    assert train(*flags(phantom, tmp_path / "out", "--run_folds", 1, "--drw_epoch", 2))[0] == 0
    plain, deferred = losses_of(finished[0])[:3], losses_of(tmp_path / "out")
    assert plain[0] == deferred[0]
    assert plain[1] != deferred[1]


def test_ldam_drw_begins_after_sixty_percent(phantom: Path, tmp_path: Path, train: Train) -> None:
    """Of one head-only epoch and four more, the first three are those of ldam."""
    found = []
    for name in ("ldam", "ldam_drw"):
        out = tmp_path / name
        assert train(*flags(phantom, out, "--run_folds", 1, "--epochs", 4, "--loss", name))[0] == 0
        found.append(losses_of(out))
    assert (found[0] == found[1]).tolist() == [True, True, True, False, False]
