"""What `python -m benchmarks sampler` measures is what it says; its figures are no test."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed import sampler
from benchmarks.speed.sampler import effective_positives, largest_deviation, peak_megabytes
from core.data.loading.samplers import Sampler


def test_the_peak_is_of_all_that_was_there_at_a_time() -> None:
    def work() -> None:
        first = np.ones(3_000_000, np.uint8)
        del first
        kept = [np.ones(4_000_000, np.uint8), np.ones(1_000_000, np.uint8)]
        kept.clear()

    assert peak_megabytes(work) == pytest.approx(5, abs=0.1)


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


def test_the_table_has_a_column_a_sampler() -> None:
    table = effective_positives(pd.DataFrame(rare(), columns=["Common", "Rare"]))
    uniform, class_aware, repeat_factor = (
        dict(zip(table.index, table[name], strict=True))
        for name in ("uniform (1,000)", "class_aware (1,000)", "repeat_factor (1,001)")
    )
    assert uniform == {"Common": 300, "Rare": 6}
    # three classes in turn, and each rare image is a common one too
    assert class_aware["Rare"] >= 333
    assert class_aware["Common"] >= 666
    # 1.75 draws more than images, rounded down
    assert repeat_factor["Rare"] == 7
