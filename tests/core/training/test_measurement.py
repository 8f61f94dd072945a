"""Measurements of a dry run: epochs by a synthetic clock, memory by the system's counters."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.config.training import TwoPhaseConfig
from core.data.loading.dataset import Batch
from core.training import measurement
from core.training.ema import MovingAverage
from core.training.measurement import Measurement, Plan, peak_memory
from core.training.optimizer import two_phases
from core.training.resume import ResumeState

CPU = torch.device("cpu")


def data(images: int) -> Any:
    """Stand-in for a fold with this number of images per update."""
    return SimpleNamespace(
        images_per_update=images, val_rows=[0] * 4, examples=lambda count: [0] * count
    )


def evaluate(measured: Measurement, sizes: Sequence[int]) -> None:
    """Read batches of these sizes."""
    rows = [torch.cat([torch.arange(size), torch.tensor([-1])]) for size in sizes]
    batches = [Batch(torch.empty(0), torch.empty(0), one, torch.empty(0)) for one in rows]
    assert len(list(measured.watch(batches))) == len(sizes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the times of the next looks at the clock."""
    left: list[float] = []
    monkeypatch.setattr(measurement, "monotonic", lambda: left.pop(0))
    return lambda *times: left.extend(times)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(2_000_000))
    return path


def plan(folds: int = 1, passes: int = 0, **epochs: int) -> Plan:
    return Plan(folds, {"head": 0, "all": 0, "retrain": 0} | epochs, passes)


def test_a_run_follows_from_the_times_of_its_updates(
    clock: Callable[..., None], checkpoint: Path
) -> None:
    # 9 s for the first update, 2 s and 4 s for the others, 6 s for the evaluation, 10 s for files
    clock(100, 109, 111, 115, 115, 121, 121, 131)
    measured = Measurement(plan(2, head=3, all=2), updates=1000, images=400, device=CPU, began=0)
    measured.start()
    for _ in range(3):
        measured.lap()
    evaluate(measured, [12, 8])
    measured.end("head", data(4))
    measured.wrote()
    # then one update of .5 s, .25 s for the evaluation and 5 s for files, and the end at 300 s
    clock(200, 200.5, 200.5, 200.75, 200.75, 205.75, 300)
    measured.start()
    measured.lap()
    evaluate(measured, [10])
    measured.end("all", data(4))
    measured.wrote()
    first, second, run, disk, memory = measured.describe(checkpoint).splitlines()
    # 1,000 x 3 s + 400 x 0.3 s, and 1,000 x 0.5 s + 400 x 0.025 s
    assert first.startswith("time         an epoch of phase head takes about 3,120.0 s: ")
    assert first.endswith("1,000 updates of 3 s, 120.0 s to evaluate 400 images")
    assert second.startswith("time         an epoch of phase all takes about 510.0 s: ")
    assert second.endswith("1,000 updates of 0.5 s, 10.0 s to evaluate 400 images")
    # 2 x (3 x 3,120 + 2 x 510 + 5 x 10) s, and 300 - 31 - 5.75 s of start and end
    assert run == "in all       about 5.9 hours for 2 folds of 5 epochs"
    assert disk == "disk         4.0 MB of checkpoints; during the run up to 4.0 MB"
    assert memory == f"memory       at most {peak_memory(CPU)}"


def test_epochs_on_cached_features_count_as_the_second_one(
    clock: Callable[..., None], checkpoint: Path
) -> None:
    # two updates of 10 s and an evaluation of 20 s of 4 images; then of 1 s, and 2 s
    clock(0, 10, 20, 20, 40, 40, 40, 40, 41, 42, 44, 44, 44, 44)
    measured = Measurement(plan(1, 2, head=5), updates=10, images=40, device=CPU, began=0)
    for sizes in ([4], []):
        measured.start()
        measured.lap()
        measured.lap()
        evaluate(measured, sizes) if sizes else None
        measured.end("head", data(8))
        measured.wrote()
    measured.add_features(100, copies=2)
    line, run, disk, _ = measured.describe(checkpoint).splitlines()
    assert line.startswith("time         an epoch of phase head takes about 300.0 s: ")
    assert line.endswith("; 30.0 s from cached features")
    # 300 s, 100 s of updates and 20 s of evaluation, 3 x 30 s
    assert run == "in all       about 8.5 min for 1 fold of 5 epochs"
    # features of 2 passes of 10 x 8 images and of 40 images twice, 100 bytes each
    assert disk == "disk         2.0 MB of checkpoints; during the run up to 2.0 MB"
    measured.add_features(100_000, copies=2)
    assert measured._describe_disk(checkpoint).endswith("up to 26.0 MB")


def test_validation_images_are_computed_once_where_each_epoch_is_a_new_pass(
    clock: Callable[..., None], checkpoint: Path
) -> None:
    clock(0, 10, 20, 20, 40, 40, 40, 40)
    measured = Measurement(plan(1, 5, head=3), updates=10, images=40, device=CPU, began=0)
    measured.start()
    measured.lap()
    measured.lap()
    evaluate(measured, [4])
    measured.end("head", data(8))
    measured.wrote()
    measured.add_features(100_000, copies=2)
    line, run, disk, _ = measured.describe(checkpoint).splitlines()
    assert line.endswith("200.0 s to evaluate 40 images in the first one")
    # 3 x 100 s of updates and 200 s of evaluation
    assert run.startswith("in all       about 8.33 min")
    # 40 images twice, .1 MB each
    assert disk.endswith("up to 10.0 MB")


def test_the_state_is_as_large_as_its_file(checkpoint: Path, tmp_path: Path) -> None:
    model = nn.Linear(1000, 100)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 1000)).sum().backward()
    optimizer.step()
    average = MovingAverage(model, 0.9)
    state = ResumeState(model, average, CPU, "here")
    state.save(tmp_path / "state.safetensors", "all", optimizer)
    measured = Measurement(plan(all=1), updates=1, images=1, device=CPU)
    measured.add_state([model, average.module], optimizer)
    assert measured._state == pytest.approx(
        (tmp_path / "state.safetensors").stat().st_size, rel=0.01
    )


@pytest.mark.parametrize(
    ("given", "epochs", "reduced"),
    [
        (
            {"epochs": 8, "warmup_head_epochs": 0},
            {"head": 0, "all": 8, "retrain": 0},
            {"epochs": 1, "warmup_head_epochs": 0, "retrain_epochs": 0},
        ),
        (
            {"epochs": 8, "warmup_head_epochs": 5, "retrain_epochs": 2},
            {"head": 5, "all": 8, "retrain": 2},
            {"epochs": 1, "warmup_head_epochs": 2, "retrain_epochs": 1, "head_views": 1},
        ),
        (
            {"epochs": 8, "warmup_head_epochs": 5, "head_phase": "exact"},
            {"head": 5, "all": 8, "retrain": 0},
            {"epochs": 1, "warmup_head_epochs": 1, "retrain_epochs": 0},
        ),
        (
            {"epochs": 8, "warmup_head_epochs": 5, "freeze_backbone": True},
            {"head": 13, "all": 0, "retrain": 0},
            {"epochs": 2, "warmup_head_epochs": 0, "retrain_epochs": 0, "head_views": 1},
        ),
    ],
)
def test_a_dry_run_has_each_kind_of_epoch_once(
    given: dict[str, Any], epochs: dict[str, int], reduced: dict[str, int]
) -> None:
    optim = TwoPhaseConfig(**given)
    found = Plan.of(optim, folds=3)
    assert found.epochs == epochs
    assert {phase.name: phase.epochs for phase in two_phases(optim)} == epochs
    assert found.reduced(optim) == reduced


def test_what_workers_decode_ahead_counts(clock: Callable[..., None], checkpoint: Path) -> None:
    # updates of 1 s; batches after 3 s of start, evaluated in 2 s; 16 images decoded in 32 s
    clock(0, 5, 6, 6, 9, 11, 20, 52, 52, 52)
    measured = Measurement(plan(all=1), updates=10, images=100, device=CPU, workers=2, ranks=5)
    measured.start()
    measured.lap()
    measured.lap()
    evaluate(measured, [4])
    measured.end("all", data(40))
    # a process decodes an image a second by two workers: 8 of the 40 of an update, 20 of the 100
    assert measured.describe(checkpoint).splitlines()[0] == (
        "time         an epoch of phase all takes about 100.0 s: 10 updates of 8 s, 20.0 s to "
        "evaluate 100 images; decoding limits it: pack the images, or give more --num_workers"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_peak_memory_is_what_the_system_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak() -> float:
        number, unit = peak_memory(CPU).split()[:2]
        return float(number.replace(",", "")) * {"GB": 1e9, "MB": 1e6}[unit]

    # it stays when what took it is gone
    assert np.ones(10_000_000).sum() == 1e7
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    most = 1024 * int(found[1])
    # a process starts with the count of the one that started it
    assert 0.9 * most < peak() < 10 * most
    before = peak()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak() == pytest.approx(before / 1024, rel=0.1)


def test_peak_memory_of_a_gpu_and_where_nothing_counts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000_000)
    assert peak_memory(torch.device("cuda", 0)) == "3.0 GB of tensors on cuda:0"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(CPU) == ""
    untimed = Measurement(plan(), updates=1, images=1, device=CPU).describe(tmp_path)
    assert untimed.startswith("time         not measured: no epoch was trained")
    assert "memory" not in untimed
