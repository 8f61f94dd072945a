"""Effect of each flag of a training."""

from pathlib import Path

import pandas as pd
import pytest

from core.config.training import TwoPhaseConfig
from core.training.optimizer import two_phases
from tests.conftest import Train
from tests.helpers.training.small_run import MODEL, flags

# of the losses one a family: each comes by the same way (tests/core/losses)
CHANGES = [
    *("--seed 1", "--batch_size 4", "--accumulate 2", "--img_size 40", "--loss bce"),
    *("--loss distribution_balanced", "--loss_options gamma_neg=1 margin=0.2"),
    *("--logit_adjust 1", "--label_smooth 0.1", "--warmup_head_epochs 0", "--warmup_head_lr 0.1"),
    *("--warmup_epochs 0", "--backbone_lr 0.01", "--head_lr 0.01", "--weight_decay 20"),
    *("--clip_norm 0.001", "--drop_rate 0", "--no-ema", "--layer_decay 0.1", "--head linear"),
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


def test_the_head_phase_caches_the_requested_number_of_passes() -> None:
    def views(**given: object) -> int:
        return two_phases(TwoPhaseConfig(**given))[0].head_views  # type: ignore[arg-type]

    assert (views(), views(head_views=1), views(head_phase="exact")) == (4, 1, 0)


def test_drw_begins_in_its_epoch(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path, train: Train
) -> None:
    """The first of three epochs is as without it, the second is not."""
    assert train(*flags(phantom, tmp_path / "out", "--run_folds", 1, "--drw_epoch", 2))[0] == 0
    plain, deferred = (
        pd.read_csv(out / "metrics.csv")["train_loss"] for out in (finished[0], tmp_path / "out")
    )
    assert plain[0] == deferred[0]
    assert plain[1] != deferred[1]
