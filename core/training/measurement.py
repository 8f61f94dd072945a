"""Seconds of a full epoch and peak memory, as a dry run measures them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean
from time import monotonic

import torch

from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData
from core.errors import format_size

# images decoded to measure decoding
_DECODED = 16


@dataclass
class Measurement:
    """Times of a dry run's few updates, and what a full epoch of the real training takes by them.

    `updates` and validation `images` are those of a full epoch of the fold. Loader workers decode a
    few batches ahead, so that few updates never wait for them: what `workers` of each of `ranks`
    processes take to decode is measured apart, and the slower of both counts.
    """

    updates: int
    images: int
    device: torch.device
    workers: int = 0
    ranks: int = 1
    _phases: dict[str, tuple[float, float, bool]] = field(default_factory=dict, init=False)
    """By name the seconds of an update, those of the evaluation, and whether decoding limits."""
    _laps: list[float] = field(default_factory=list, init=False)
    _evaluation: tuple[float, int] = field(default=(0.0, 0), init=False)
    """Start of the evaluation, and how many images of this process it had so far."""

    def start(self) -> None:
        """Start the clock of an epoch."""
        self._laps, self._evaluation = [monotonic()], (0.0, 0)

    def lap(self) -> None:
        """Note the end of an update, for which the device was waited."""
        self._laps.append(monotonic())

    def watch(self, batches: Batches) -> Batches:
        """The validation batches, timed while they are read."""
        return _Timed(batches, self)

    def end(self, phase: str, data: FoldData) -> None:
        """Note the end of the epoch's evaluation."""
        ended, (began, evaluated) = monotonic(), self._evaluation
        decoding = self._seconds_of_decoding(data)
        seconds = [later - lap for lap, later in zip(self._laps, self._laps[1:], strict=False)]
        # the first update also starts workers and allocates
        update = mean(seconds[1:] or seconds)
        read = decoding * data.images_per_update / self.ranks
        an_image = max((ended - began) / evaluated, decoding) if evaluated else 0.0
        evaluation = an_image * self.images / self.ranks
        self._phases[phase] = max(update, read), evaluation, read > update

    def _seconds_of_decoding(self, data: FoldData) -> float:
        """Of one image, by all workers of this process; 0 where updates include it."""
        if not self.workers:
            return 0.0
        # imports and first calls
        data.examples(1)
        began = monotonic()
        count = len(data.examples(_DECODED))
        return (monotonic() - began) / max(count, 1) / self.workers

    def describe(self) -> str:
        """Lines with the seconds of an epoch of each phase, and the peak memory."""
        lines = []
        for phase, (update, evaluation, waits) in self._phases.items():
            total = self.updates * update + evaluation
            lines.append(
                f"time         an epoch of phase {phase} takes about {total:,.1f} s: "
                f"{self.updates:,} updates of {update:.3g} s, {evaluation:,.1f} s to evaluate "
                f"{self.images:,} images"
            )
            if waits:
                lines[-1] += "; decoding limits it: pack the images, or give more --num_workers"
        if not self._phases:
            lines.append("time         not measured: no epoch was trained")
        if peak := peak_memory(self.device):
            lines.append(f"memory       at most {peak}")
        return "\n".join(lines)


class _Timed:
    """Batches that note when the first one was asked for, or was there, and how many images came.

    The start of loader workers takes seconds once an epoch, however many images there are.
    """

    def __init__(self, batches: Batches, measured: Measurement) -> None:
        self._batches, self._measured = batches, measured

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        began, images = monotonic(), 0
        for batch in self._batches:
            if self._measured.workers and not images:
                began = monotonic()
            # a row of -1 is padding
            images += int((batch.rows >= 0).sum())
            self._measured._evaluation = began, images
            yield batch


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has taken so far; "" where the system does not count it."""
    if device.type == "cuda":
        return f"{format_size(torch.cuda.max_memory_allocated(device))} of tensors on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB but on macOS
    size = format_size(peak if sys.platform == "darwin" else 1024 * peak)
    return f"{size} in one process, without its loader workers"
