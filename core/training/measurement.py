"""Measurements of a dry run: seconds of a full epoch, peak memory."""

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
    """Estimate of a full epoch's time from the few updates of a dry run.

    `updates` and validation `images` are those of a full epoch of the fold. Loader workers decode
    ahead, so that a few updates never wait for them: decoding by `workers` of each of `ranks`
    processes is measured separately, and the slower of both counts.
    """

    updates: int
    images: int
    device: torch.device
    workers: int = 0
    ranks: int = 1
    _phases: dict[str, tuple[float, float, bool]] = field(default_factory=dict, init=False)
    """By phase: seconds of an update, seconds of the evaluation, whether decoding is the limit."""
    _laps: list[float] = field(default_factory=list, init=False)
    _evaluation: tuple[float, int] = field(default=(0.0, 0), init=False)
    """Start of the evaluation, and the number of images of this process so far."""

    def start(self) -> None:
        """Start the clock of an epoch."""
        self._laps, self._evaluation = [monotonic()], (0.0, 0)

    def lap(self) -> None:
        """Record the end of an update; the device must have been waited for."""
        self._laps.append(monotonic())

    def watch(self, batches: Batches) -> Batches:
        """Wrap the validation batches to time them."""
        return _Timed(batches, self)

    def end(self, phase: str, data: FoldData) -> None:
        """Record the end of an epoch's evaluation."""
        ended, (began, evaluated) = monotonic(), self._evaluation
        decoding = self._seconds_of_decoding(data)
        seconds = [later - lap for lap, later in zip(self._laps, self._laps[1:], strict=False)]
        # the first update includes the start of workers and allocation
        update = mean(seconds[1:] or seconds)
        read = decoding * data.images_per_update / self.ranks
        an_image = max((ended - began) / evaluated, decoding) if evaluated else 0.0
        evaluation = an_image * self.images / self.ranks
        self._phases[phase] = max(update, read), evaluation, read > update

    def _seconds_of_decoding(self, data: FoldData) -> float:
        """Seconds to decode an image by all workers of this process; 0 if updates include it."""
        if not self.workers:
            return 0.0
        # warm-up: imports and first calls
        data.examples(1)
        began = monotonic()
        count = len(data.examples(_DECODED))
        return (monotonic() - began) / max(count, 1) / self.workers

    def describe(self) -> str:
        """Format the seconds of an epoch of each phase, and the peak memory."""
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
    """Batches that record the time of the first one and the number of images.

    With workers the clock starts at the first batch: their start takes seconds once an epoch.
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
    """Peak memory of this process so far; "" where the system does not report it."""
    if device.type == "cuda":
        return f"{format_size(torch.cuda.max_memory_allocated(device))} of tensors on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB, except on macOS
    size = format_size(peak if sys.platform == "darwin" else 1024 * peak)
    return f"{size} in one process, without its loader workers"
