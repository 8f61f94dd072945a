"""Seconds of a full epoch and peak memory, as a dry run measures them."""

import sys
from dataclasses import dataclass, field
from statistics import mean
from time import monotonic

import torch

from core.errors import size_of


@dataclass
class Measurement:
    """Times of a dry run's few updates, and what a full epoch of the real training takes by them.

    `updates` and validation `images` are those of a full epoch of the fold.
    """

    updates: int
    images: int
    device: torch.device
    _phases: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)
    """By name the seconds of an update, and of the evaluation of an image."""
    _laps: list[float] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Start the clock of an epoch."""
        self._laps = [monotonic()]

    def lap(self) -> None:
        """Note the end of an update, for which the device was waited."""
        self._laps.append(monotonic())

    def end(self, phase: str, images: int) -> None:
        """Note the end of the epoch's evaluation, of so many images."""
        *_, last = self._laps
        seconds = [later - lap for lap, later in zip(self._laps, self._laps[1:], strict=False)]
        # the first update also starts workers and allocates
        self._phases[phase] = mean(seconds[1:] or seconds), (monotonic() - last) / images

    def describe(self) -> str:
        """Lines with the seconds of an epoch of each phase, and the peak memory."""
        lines = []
        for phase, (update, image) in self._phases.items():
            training, evaluation = self.updates * update, self.images * image
            lines.append(
                f"time         an epoch of phase {phase} takes about {training + evaluation:,.1f} "
                f"s: {self.updates:,} updates of {update:.3g} s, {evaluation:,.1f} s to evaluate "
                f"{self.images:,} images"
            )
        if peak := peak_memory(self.device):
            lines.append(f"memory       {peak} at the peak")
        return "\n".join(lines)


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has taken so far; "" where the system does not count it."""
    if device.type == "cuda":
        return f"{size_of(torch.cuda.max_memory_allocated(device))} of tensors on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB but on macOS
    size = size_of(peak if sys.platform == "darwin" else 1024 * peak)
    return f"{size} of one process, without its loader workers,"
