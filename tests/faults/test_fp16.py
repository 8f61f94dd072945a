"""fp16 overflow: skipped updates are counted, and permanent overflow ends the run.

There is no GPU: a network in float32, of which a scaler for the CPU scales the gradients; these are
then rounded to fp16, which has nothing above 65,504.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch.optim.adamw import AdamW

from core.models.checkpoint import load_facts
from tests.conftest import Train
from tests.helpers.training.small_run import MODEL, flags
from tests.helpers.training.stopped_training import stopped_at

TOO_MUCH = 2.0**22  # halved by each update that overflows
OVERFLOW = pytest.mark.fault("fp16 overflow")


def scaled(factor: float) -> Callable[..., Fabric]:
    """Maker of a Fabric with gradient scaling that starts at `factor`."""

    class Rounded(MixedPrecision):
        """Computes in float32, and has fp16's gradients."""

        def __init__(self) -> None:
            scaler = torch.amp.GradScaler("cpu", init_scale=factor)
            super().__init__("16-mixed", "cpu", scaler=scaler)
            self._desired_input_dtype = torch.float32

        def forward_context(self) -> torch.autocast:
            return torch.autocast("cpu", enabled=False)

        def unscale_gradients(self, optimizer: torch.optim.Optimizer) -> None:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.copy_(parameter.grad.half())
            super().unscale_gradients(optimizer)

    def make(*, amp: bool) -> Fabric:
        return Fabric(accelerator="cpu", devices=1, plugins=Rounded())

    return make


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step that AdamW really makes."""
    made: list[float] = []
    step = AdamW.step

    def count(self: AdamW, *arguments: object) -> object:
        made.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(AdamW, "step", count)
    return made


def arguments(phantom: Path, out: Path, *more: object) -> list[str]:
    options = ("--run_folds", 1, "--warmup_head_epochs", 0, "--epochs", 3, "--log_every", 2)
    return flags(phantom, out, *options, *more)


@OVERFLOW
def test_skipped_updates_are_counted_and_shown(
    phantom: Path,
    tmp_path: Path,
    train: Train,
    steps: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.training.run.make_fabric", scaled(TOO_MUCH))
    out = tmp_path / "out"
    code, printed, error = train(*arguments(phantom, out))
    assert code == 0, error
    skipped = pd.read_csv(out / "timing.csv")["skipped"].tolist()
    updates = (pd.read_csv(out / "folds.csv")["fold"] != 1).sum() // 8
    assert skipped[0] == updates
    assert sum(skipped) + len(steps) == 3 * updates
    assert 0 < skipped[1] < updates
    assert printed.count("Warning: every update of this epoch overflowed fp16 and was skipped") == 1
    lines = [line for line in printed.splitlines() if re.match(r"fold 1/2  epoch ", line)]
    for line, count in zip(lines, skipped, strict=True):
        assert line.endswith(f"{count} {'update' if count == 1 else 'updates'} skipped") == (
            count > 0
        )
    assert "skipped" not in (out / "metrics.csv").read_text()
    assert (out / "report.html").exists()


@OVERFLOW
def test_a_stopped_run_resumes_with_its_count_and_its_scale(
    phantom: Path,
    tmp_path: Path,
    train: Train,
    steps: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.training.run.make_fabric", scaled(TOO_MUCH))
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert train(*arguments(phantom, straight))[0] == 0
    undisturbed = list(steps)
    steps.clear()
    stopped_at(train, 2, *arguments(phantom, out))
    kept = load_facts(out / f"{MODEL}_fold1.state.safetensors")["scale"]["scale"]
    assert kept < TOO_MUCH
    assert train(*arguments(phantom, out))[0] == 0
    assert steps == undisturbed
    assert (out / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()
    ours, theirs = (pd.read_csv(path / "timing.csv")["skipped"] for path in (out, straight))
    assert ours.tolist() == theirs.tolist()


@OVERFLOW
def test_gradients_that_overflow_at_any_scale_end_the_run(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that are never finite: a scaler alone would run for ever and learn nothing."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("core.training.run.make_fabric", scaled(2.0))
        spoil_gradients(patch)
        code, _, error = train(*arguments(phantom, out))
    assert code == 2
    assert "gradients overflow fp16 at any scale (fold 1, epoch 1, 2 updates skipped)" in error
    assert error.count("\n") == 1
    assert not list(out.glob("*.safetensors"))
    # in full precision the same command resumes
    assert train(*arguments(phantom, out))[0] == 0


def spoil_gradients(patch: pytest.MonkeyPatch) -> None:
    """All gradients become infinite, while the loss stays what it is."""
    backward = Fabric.backward

    def spoil(self: Fabric, loss: torch.Tensor, *rest: object) -> None:
        loss.register_hook(lambda gradient: gradient * torch.inf)
        backward(self, loss, *rest)

    patch.setattr(Fabric, "backward", spoil)
