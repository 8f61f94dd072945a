"""Measurements of a dry run: epochs by a synthetic clock, memory by the system's counters."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from core.data.loading.dataset import Batch
from core.training import measurement
from core.training.measurement import Measurement, peak_memory

CPU = torch.device("cpu")


def data(images: int) -> Any:
    """Stand-in for a fold with this number of images per update."""
    return SimpleNamespace(images_per_update=images, examples=lambda count: [0] * count)


def evaluate(measured: Measurement, sizes: Sequence[int]) -> None:
    """Read batches of these sizes."""
    rows = [torch.cat([torch.arange(size), torch.tensor([-1])]) for size in sizes]
    batches = [Batch(torch.empty(0), torch.empty(0), one, torch.empty(0)) for one in rows]
    assert len(list(measured.watch(batches))) == len(sizes)


def test_an_epoch_follows_from_the_times_of_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    # 9 s for the first update, 2 s and 4 s for the others, 6 s for the evaluation; then one update
    times = iter([100, 109, 111, 115, 115, 121, 200, 200.5, 200.5, 200.75])
    monkeypatch.setattr(measurement, "monotonic", lambda: next(times))
    measured = Measurement(updates=1000, images=400, device=CPU)
    measured.start()
    for _ in range(3):
        measured.lap()
    evaluate(measured, [12, 8])
    measured.end("head", data(4))
    measured.start()
    measured.lap()
    evaluate(measured, [10])
    measured.end("all", data(4))
    first, second, memory = measured.describe().splitlines()
    # 1,000 x 3 s + 400 x 0.3 s, and 1,000 x 0.5 s + 400 x 0.025 s
    assert first.startswith("time         an epoch of phase head takes about 3,120.0 s: ")
    assert first.endswith("1,000 updates of 3 s, 120.0 s to evaluate 400 images")
    assert second.startswith("time         an epoch of phase all takes about 510.0 s: ")
    assert second.endswith("1,000 updates of 0.5 s, 10.0 s to evaluate 400 images")
    assert memory == f"memory       at most {peak_memory(CPU)}"


def test_what_workers_decode_ahead_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # updates of 1 s; batches after 3 s of start, evaluated in 2 s; 16 images decoded in 32 s
    times = iter([0, 5, 6, 6, 9, 11, 20, 52])
    monkeypatch.setattr(measurement, "monotonic", lambda: next(times))
    measured = Measurement(updates=10, images=100, device=CPU, workers=2, ranks=5)
    measured.start()
    measured.lap()
    measured.lap()
    evaluate(measured, [4])
    measured.end("all", data(40))
    # a process decodes an image a second by two workers: 8 of the 40 of an update, 20 of the 100
    assert measured.describe().splitlines()[0] == (
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


def test_peak_memory_of_a_gpu_and_where_nothing_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000_000)
    assert peak_memory(torch.device("cuda", 0)) == "3.0 GB of tensors on cuda:0"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(CPU) == ""
    untimed = Measurement(updates=1, images=1, device=CPU).describe()
    assert untimed.startswith("time         not measured: no epoch was trained")
    assert "memory" not in untimed
