"""`python -m benchmarks step`: equal work of both loops, and a run (no check of speed)."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed.step import AlternatingBatches, BareLoop, Task, compare, fit, floating
from methods.standard_head.config import Config, small


@pytest.fixture
def tiny() -> Config:
    """A model of milliseconds that drops nothing: Fit and the bare loop draw other numbers."""
    config = small()
    config.model.model, config.model.drop_rate = "test_efficientnet", 0.0
    config.loader.img_size, config.loader.batch_size = 32, 4
    config.loop.log_every = 1
    return config


def test_both_loops_make_the_same_average(tiny: Config, tmp_path: Path) -> None:
    task = Task(tiny, updates=2)
    # a warm-up of one update leaves Fit's schedule at its peak for two; the bare loop has none
    task.phase = replace(task.phase, warmup_epochs=0.5)
    bare = BareLoop(task)
    data = AlternatingBatches(task, bare)
    ours, start = floating(fit(task, data, tmp_path)), floating(task.model())
    changed = [not torch.equal(*pair) for pair in zip(ours, start, strict=True)]
    # all but the backbone's mean and std
    assert sum(changed) == len(changed) - 2
    # the end of the last update is not seen
    ((own, theirs_took),) = data.seconds
    assert own > 0
    assert theirs_took > 0
    # the loops differ in memory layout; AdamW turns the last digit of a tiny gradient into a step
    end, begin, theirs = (
        torch.cat([part.flatten() for part in one]) for one in (ours, start, floating(bare.average))
    )
    assert torch.dist(end, theirs) < 0.01 * torch.dist(end, begin)


def test_speed_has_a_floor_and_parts_are_held_against_an_update(
    tiny: Config, tmp_path: Path
) -> None:
    whole, *parts, average = compare(Task(tiny, updates=3), tmp_path)
    assert (whole.unit, whole.floor, whole.ceiling) == ("images/s", 0.95, None)
    assert len(parts) == 4
    for part in parts:
        assert (part.unit, part.verdict) == ("ms", None)
        assert part.reference == pytest.approx(1000 * 4 / whole.reference)
    assert all(
        math.isfinite(answer.ratio) and answer.ratio > 0 for answer in (whole, *parts, average)
    )
    assert (average.unit, average.against, average.floor) == ("/s", "timm's ModelEmaV3", 0.95)
