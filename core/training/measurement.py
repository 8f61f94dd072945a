"""Measurements of a dry run: time of an epoch and of the whole run, disk space, peak memory."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from time import monotonic

import torch
from torch import nn

from core.config.training import OptimConfig
from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData
from core.errors import format_size, format_time, pluralize
from core.runtime.log import STARTED

# images decoded to measure decoding
_DECODED = 16


@dataclass(frozen=True)
class Plan:
    """Folds, epochs of each phase, and passes over a frozen backbone that are computed."""

    folds: int
    epochs: dict[str, int]
    passes: int = 0

    @classmethod
    def of(cls, optim: OptimConfig, folds: int) -> "Plan":
        """The plan of the phases that the methods make."""
        head, epochs = getattr(optim, "warmup_head_epochs", 0), optim.epochs
        if optim.freeze_backbone:
            head, epochs = head + epochs, 0
        by_phase = {"head": head, "all": epochs, "retrain": optim.retrain_epochs}
        return cls(folds, by_phase, optim.cached_passes)

    @property
    def all_epochs(self) -> int:
        """Epochs of a fold."""
        return sum(self.epochs.values())

    def cached(self, phase: str) -> int:
        """Epochs of a phase that read the features of earlier ones."""
        return max(0, self.epochs[phase] - self.passes) if self.passes and phase != "all" else 0

    def kept_passes(self, phase: str) -> int:
        """passes of a phase with features that are kept on the disk."""
        return min(self.passes, self.cached(phase))

    def reduced(self, optim: OptimConfig) -> dict[str, int]:
        """Settings of a dry run: an epoch of each phase, and another that reads its features."""
        few = {name: min(1, n) + min(1, self.cached(name)) for name, n in self.epochs.items()}
        found = {"epochs": few["all"], "warmup_head_epochs": few["head"]}
        if optim.freeze_backbone:
            found = {"epochs": few["head"], "warmup_head_epochs": 0}
        if any(number > 1 for number in few.values()):
            found["head_views"] = 1
        found["retrain_epochs"] = few["retrain"]
        return {name: number for name, number in found.items() if hasattr(optim, name)}


@dataclass(frozen=True)
class _Epoch:
    """Seconds of an update and of the evaluation, and whether decoding is the limit."""

    update: float
    evaluation: float
    waits: bool = False


@dataclass
class Measurement:
    """Estimate of a run's time and disk space from the few updates of a dry run.

    `updates` and validation `images` are those of a full epoch of the fold. Loader workers decode
    ahead, so that a few updates never wait for them: decoding by `workers` of each of `ranks`
    processes is measured separately, and the slower of both counts.
    """

    plan: Plan
    updates: int
    images: int
    device: torch.device
    workers: int = 0
    ranks: int = 1
    began: float = STARTED
    """Start of the program."""
    _phases: dict[str, _Epoch] = field(default_factory=dict, init=False)
    _cached: dict[str, _Epoch] = field(default_factory=dict, init=False)
    """Epochs that read the features of those in `_phases`."""
    _laps: list[float] = field(default_factory=list, init=False)
    _evaluation: tuple[float, int] = field(default=(0.0, 0), init=False)
    """Start of the evaluation, and the number of images of this process so far."""
    _ended: float = field(default=0.0, init=False)
    _in_epochs: float = field(default=0.0, init=False)
    """Seconds of all epochs; the rest of the dry run is its start and its end."""
    _files: float = field(default=0.0, init=False)
    """Most seconds to score an epoch and to write its files."""
    _state: int = field(default=0, init=False)
    """Bytes of a resume state."""
    _features: tuple[int, int] = field(default=(0, 0), init=False)
    """Bytes of an image's features, and of those of all validation images."""
    _per_update: int = field(default=0, init=False)

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
        """Record the end of an epoch's evaluation; the second of a phase reads features."""
        ended, (began, evaluated) = monotonic(), self._evaluation
        seconds = [later - lap for lap, later in zip(self._laps, self._laps[1:], strict=False)]
        self._per_update = data.images_per_update
        # the first update includes the start of workers and allocation
        update = mean(seconds[1:] or seconds)
        if phase in self._phases:
            evaluation = (ended - self._laps[-1]) / len(data.val_rows) * self.images
            self._cached[phase] = _Epoch(update, evaluation)
        else:
            decoding = self._seconds_of_decoding(data)
            read = decoding * data.images_per_update / self.ranks
            an_image = max((ended - began) / evaluated, decoding) if evaluated else 0.0
            evaluation = an_image * self.images / self.ranks
            self._phases[phase] = _Epoch(max(update, read), evaluation, read > update)
        self._ended = monotonic()

    def wrote(self) -> None:
        """Record that an epoch is scored and its files are written."""
        now = monotonic()
        self._files = max(self._files, now - self._ended)
        self._in_epochs += now - self._laps[0]

    def add_state(self, modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """Record the size of a resume state: `modules`, and two moments of each parameter."""
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        size = sum(one.nbytes for one in tensors) + 2 * sum(one.nbytes for one in parameters)
        self._state = max(self._state, size)

    def add_features(self, size: int, copies: int) -> None:
        """Record the bytes of an image's cached features; validation images have `copies`."""
        self._features = max(self._features, (size, size * copies * self.images))

    def _seconds_of_decoding(self, data: FoldData) -> float:
        """Seconds to decode an image by all workers of this process; 0 if updates include it."""
        if not self.workers:
            return 0.0
        # warm-up: imports and first calls
        data.examples(1)
        began = monotonic()
        count = len(data.examples(_DECODED))
        return (monotonic() - began) / max(count, 1) / self.workers

    def describe(self, checkpoint: Path) -> str:
        """Format the time of an epoch of each phase and of the run, disk space and peak memory."""
        lines = []
        for phase, epoch in self._phases.items():
            seconds = self._seconds(epoch)
            line = (
                f"time         an epoch of phase {phase} takes about {seconds:,.1f} s: "
                f"{self.updates:,} updates of {epoch.update:.3g} s, {epoch.evaluation:,.1f} s to "
                f"evaluate {self.images:,} images"
            )
            if self._keeps_validation(phase):
                line += " in the first one"
            if phase in self._cached:
                line += f"; {self._seconds(self._cached[phase]):,.1f} s from cached features"
            if epoch.waits:
                line += "; decoding limits it: pack the images, or give more --num_workers"
            lines.append(line)
        if self._phases:
            folds = pluralize(self.plan.folds, "fold")
            lines += [
                f"in all       about {format_time(self.total_seconds())} for {folds} of "
                f"{pluralize(self.plan.all_epochs, 'epoch')}",
                self._describe_disk(checkpoint),
            ]
        else:
            lines.append("time         not measured: no epoch was trained")
        if peak := peak_memory(self.device):
            lines.append(f"memory       at most {peak}")
        return "\n".join(lines)

    def total_seconds(self) -> float:
        """Seconds of the real run, from the start of the program."""
        a_fold = self.plan.all_epochs * self._files
        for phase, epoch in self._phases.items():
            cached = self.plan.cached(phase)
            computed = self.plan.epochs[phase] - cached
            a_fold += computed * self._seconds(epoch)
            evaluation = 0.0
            if cached:
                a_fold += cached * self._seconds(self._cached[phase])
                evaluation = self._cached[phase].evaluation
            if self._keeps_validation(phase):
                a_fold -= (computed - 1) * (epoch.evaluation - evaluation)
        return monotonic() - self.began - self._in_epochs + self.plan.folds * a_fold

    def _keeps_validation(self, phase: str) -> bool:
        """Whether the first epoch of a phase keeps the features of the validation images."""
        return phase != "all" and self.plan.passes > 0 and self.plan.epochs[phase] > 1

    def _seconds(self, epoch: _Epoch) -> float:
        return self.updates * epoch.update + epoch.evaluation

    def _describe_disk(self, checkpoint: Path) -> str:
        """Space of the checkpoints; of a resume state, twice while it is replaced; of features."""
        weights = self.plan.folds * checkpoint.stat().st_size
        a_row, of_validation = self._features
        passes = max(map(self.plan.kept_passes, self.plan.epochs))
        features = passes * self.updates * self._per_update * a_row
        if any(map(self._keeps_validation, self.plan.epochs)):
            features += of_validation
        during = weights + 2 * self._state + features
        return (
            f"disk         {format_size(weights)} of checkpoints; during the run up to "
            f"{format_size(during)}"
        )


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
