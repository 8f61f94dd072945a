"""FoldTrainer: accumulation and freezing (whole runs are in tests/methods)."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.config.training import LoaderConfig
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData
from core.data.tables.label_table import LabelTable
from core.losses import build_loss
from core.runs.log import FoldLog
from core.runtime.fabric import make_fabric
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase
from core.training.resume import Progress
from tests.helpers.training.toy_model import Toy, half_known, toy_run


def fit_toy(
    table: LabelTable, out: Path, phase: Phase, norm: nn.Module, batch: int, accumulate: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after training on all but the last ten images."""
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = Toy(len(table.class_names), norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fabric = make_fabric(amp="off")
    rows = np.arange(len(table))
    loader = LoaderConfig(img_size=32, batch_size=batch, num_workers=0)
    data = FoldData(
        fabric, 1, table, rows[:-10], rows[-10:], loader, accumulate, Augmentation([], seed=0)
    )
    loss = build_loss("bce", *data.training_counts())
    FoldTrainer(toy_run(data, out, accumulate=accumulate), data, model, loss, [phase]).fit()
    return before, model.state_dict()


@pytest.fixture
def table(phantom: Path) -> LabelTable:
    return half_known(phantom)


def test_accumulation_is_a_larger_batch_even_where_labels_are_unknown(
    table: LabelTable, tmp_path: Path
) -> None:
    phase = Phase("all", 2, {"backbone": 1e-2, "head": 1e-2})
    options = (table, tmp_path / "one", phase, nn.Identity())
    before, one = fit_toy(*options, batch=8, accumulate=1)
    _, four = fit_toy(options[0], tmp_path / "four", phase, nn.Identity(), batch=2, accumulate=4)
    for name, value in one.items():
        torch.testing.assert_close(four[name], value, atol=1e-5, rtol=0)
        assert (value - before[name]).abs().max() > 1e-3


def test_a_head_only_phase_leaves_the_backbone_alone(table: LabelTable, tmp_path: Path) -> None:
    phase = Phase("head", 2, {"head": 1e-2})
    before, after = fit_toy(table, tmp_path / "out", phase, nn.BatchNorm2d(2), 8, 1)
    for name, value in after.items():
        # batch statistics included
        assert torch.equal(value, before[name]) == name.startswith("backbone")


def test_updates_of_another_size_are_counted_again() -> None:
    """As on resuming with two processes in place of one, or the other way round."""
    progress = Progress(epoch=2, update=5, total_updates=25)
    assert progress.recount(8) == ""
    assert "takes 16 images and took 8" in progress.recount(16)
    # 40 images are behind it, of which the last 8 are seen again
    assert (progress.update, progress.images_per_update) == (2, 16)
    assert "takes 4 images" in progress.recount(4)
    assert progress.update == 8
    assert progress.recount(4) == ""


def test_a_run_resumes_with_updates_of_another_size(
    table: LabelTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    phase = Phase("all", 2, {"backbone": 1e-2, "head": 1e-2})
    seen: list[int] = []
    advance = FoldLog.advance

    def stop_at_the_third(self: FoldLog, images: int) -> None:
        seen.append(images)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, images)

    monkeypatch.setattr(FoldLog, "advance", stop_at_the_third)
    with pytest.raises(SystemExit):
        fit_toy(table, tmp_path / "out", phase, nn.Identity(), batch=8, accumulate=1)
    fit_toy(table, tmp_path / "out", phase, nn.Identity(), batch=4, accumulate=1)
    # 24 of 50 images, then from the seventh update of four on, and the second epoch
    assert seen == [8] * 3 + [4] * (12 - 6) + [4] * 12
    assert "An update now takes 4 images and took 8" in capsys.readouterr().out
