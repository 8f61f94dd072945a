"""`python -m benchmarks sampler`: what it measures and prints (no check of speed)."""

import numpy as np
import pytest

from benchmarks.speed import sampler
from benchmarks.speed.sampler import largest_deviation
from core.data.loading.samplers import Sampler


def rare() -> np.ndarray:
    """1,000 images of which 6 have the second label: sqrt(10 / 6) = 1.291 draws each."""
    targets = np.zeros((1000, 2), np.float32)
    targets[:300, 0] = targets[:6, 1] = 1
    return targets


def test_a_sampler_that_repeats_nothing_deviates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_deviation(rare()) < 0.1
    nothing = Sampler("repeat_factor", 1000, lambda start, stop: np.arange(1000))
    monkeypatch.setattr(sampler, "build_sampler", lambda *_, **__: nothing)
    assert largest_deviation(rare()) == pytest.approx(1 - (6 / 10) ** 0.5)
