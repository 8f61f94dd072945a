"""Resume state of a fold: weights, optimizer, loss sums and progress in one file."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from core.config.values import Count
from core.errors import UserError
from core.models.checkpoint import load_into, load_tensors, save_tensors, select_prefix
from core.training.ema import MovingAverage
from core.training.optimizer import load_scale, scale_state


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Progress of a fold: completed epochs and updates; `best_epoch` counts from 1."""

    epoch: Count = 0
    update: Count = 0
    total_updates: Count = 0
    best: float | None = None
    best_epoch: Count = 0
    finished: bool = False
    images_per_update: Count = 0

    def recount(self, images_per_update: int) -> str:
        """Convert the update count to `images_per_update`; returns a note if that changed."""
        before, self.images_per_update = self.images_per_update, images_per_update
        if before in (0, images_per_update):
            return ""
        self.update = self.update * before // images_per_update
        return (
            f"An update now takes {images_per_update} images and took {before} before the stop: "
            "the run resumes, but its numbers will differ."
        )

    def end_epoch(self, value: float, stages: Sequence[int], patience: int | None) -> bool:
        """Record an epoch with monitored `value`; True if it is the best so far.

        `stages`: ends of the ordinary epochs and of the re-training. A stage ends early after
        `patience` of its epochs without a better one; the fold is finished after the last.
        """
        start = max((end for end in stages if end <= self.epoch), default=0)
        end = min(end for end in stages if end > self.epoch)
        self.epoch, self.update = self.epoch + 1, 0
        # without any finite value the first epoch is the best
        first = self.best_epoch == 0
        best = first or (math.isfinite(value) and (self.best is None or value > self.best))
        if best:
            self.best = value if math.isfinite(value) else None
            self.best_epoch = self.epoch
        over = self.epoch == end
        if patience is not None and self.epoch - max(self.best_epoch, start) >= patience:
            over = True
        self.finished = over and end == stages[-1]
        if over and not self.finished:
            self.epoch = end
        return best


class ResumeState:
    """Resume state of a fold; random numbers need none, as they depend on the step alone.

    `loss_sums` holds (sum of losses, known labels, skipped updates) of the epoch; skipped updates
    are counted on the first rank only. A file is loaded only if its `identity` (run, data and fold)
    is equal.
    """

    def __init__(
        self,
        model: nn.Module,
        average: MovingAverage | None,
        device: torch.device,
        identity: str,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.scaler = scaler
        self.model, self.average, self.identity = model, average, identity
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sums = torch.zeros(3, dtype=precise, device=device)
        self.progress = Progress()
        self.decay_tokens = False
        """Whether the optimizer decays tokens too, as in states of version 0.1."""
        self.image_digests: np.ndarray | None = None
        """(N,) int64, filled by `load`; None if unknown."""
        self._loaded: dict[str, Tensor] = {}
        self._loaded_phase = ""
        self._loaded_path = Path()

    def save(
        self, path: Path, phase: str = "", optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Write the state atomically; that of a finished fold has no tensors."""
        tensors: dict[str, Tensor] = {}
        if not self.progress.finished:
            assert optimizer is not None
            tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
            if self.average is not None:
                states = self.average.module.state_dict()
                tensors |= {f"average.{n}": t for n, t in states.items()}
            tensors |= {
                f"optimizer.{index}.{name}": value
                for index, parameter in enumerate(_parameters(optimizer))
                for name, value in optimizer.state[parameter].items()
            }
            tensors["loss_sums"] = self.loss_sums
            if self.image_digests is not None:
                tensors["image_digests"] = torch.from_numpy(self.image_digests)
        facts = {
            "run": self.identity,
            "phase": phase,
            "scale": scale_state(self.scaler),
            "decay_tokens": self.decay_tokens,
            "progress": msgspec.to_builtins(self.progress),
        }
        save_tensors(path, tensors, facts)

    def add_loss(self, loss: Tensor, targets: Tensor) -> None:
        """Add a batch's mean `loss` over its known `targets` (B, C)."""
        known = (~torch.isnan(targets)).sum()
        self.loss_sums[:2] += torch.stack([loss * known, known])

    def count_skipped(self, norm: Tensor, *, first: bool) -> Tensor:
        """Count an overflowed update on the `first` rank; returns a norm of 0 for later checks."""
        if first:
            self.loss_sums[2] += ~torch.isfinite(norm)
        return torch.zeros_like(norm)

    def gather(self, fabric: Fabric) -> tuple[float, int]:
        """Mean loss over known labels, and skipped updates, of this epoch on all ranks.

        The sums move to the first rank, which saves its state.
        """
        sums = fabric.all_reduce(self.loss_sums.clone(), reduce_op="sum")
        assert isinstance(sums, Tensor)
        self.loss_sums.copy_(sums if fabric.is_global_zero else torch.zeros_like(sums))
        total, known, skipped = sums.tolist()
        return total / max(known, 1), int(skipped)

    def is_finite(self) -> bool:
        """Whether all weights and averages are finite; waits for the device."""
        modules = [self.model] + ([self.average.module] if self.average else [])
        tensors = [t for module in modules for t in module.state_dict().values()]
        norms = torch._foreach_norm([t for t in tensors if t.is_floating_point()])
        return bool(torch.stack(norms).isfinite().all())

    def load(self, path: Path, *, first: bool) -> None:
        """Load a state file, the sums on the `first` rank. Raises UserError for any other file."""
        tensors, facts = load_tensors(path)
        if facts.get("run") != self.identity:
            raise UserError(
                f"{path} is the state of a run with other settings, data or folds: move it back to "
                "its run, and restore the state of this run"
            )
        try:
            self.progress = msgspec.convert(facts["progress"], Progress)
            self._loaded_phase = facts["phase"]
            self.decay_tokens = bool(facts.get("decay_tokens", True))
            if self.progress.finished:
                return
            load_scale(self.scaler, facts["scale"])
            if first:
                self.loss_sums.copy_(tensors["loss_sums"])
        except (KeyError, TypeError, ValueError, RuntimeError, msgspec.ValidationError) as error:
            raise UserError(f"{path} is not a valid resume state ({error})") from error
        self._load_digests(tensors.get("image_digests"), path)
        load_into(self.model, select_prefix(tensors, "model."), path)
        if self.average is not None:
            load_into(self.average.module, select_prefix(tensors, "average."), path)
        self._loaded, self._loaded_path = select_prefix(tensors, "optimizer."), path

    def _load_digests(self, saved: Tensor | None, path: Path) -> None:
        if saved is None:
            # a state of an earlier version has no digests
            self.image_digests = None
        elif self.image_digests is not None:
            ours = torch.from_numpy(self.image_digests)
            if saved.shape != ours.shape or saved.dtype != ours.dtype:
                raise UserError(f"{path} is not a valid resume state (image_digests do not fit)")
            ours.copy_(saved)

    def load_optimizer(self, phase: str, optimizer: torch.optim.Optimizer) -> None:
        """Copy the saved moments of `phase` into its optimizer. Raises UserError if they differ."""
        if self._loaded and self._loaded_phase == phase:
            for index, parameter in enumerate(_parameters(optimizer)):
                saved = select_prefix(self._loaded, f"{index}.")
                # a parameter without gradient was never stepped
                if not saved:
                    continue
                shapes = {name: value.shape for name, value in saved.items()}
                moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter.shape)
                if shapes != {"step": torch.Size()} | moments:
                    raise UserError(
                        f"{self._loaded_path} does not fit its optimizer: move it away to restart "
                        "the fold"
                    )
                # a fused step reads moments in the parameter's own memory layout, and its count on
                # the device; any other step would wait for the device once for each count
                moved = parameter.device if optimizer.defaults.get("fused") else "cpu"
                optimizer.state[parameter] = {
                    name: torch.empty_like(parameter).copy_(value)
                    if value.ndim
                    else value.to(moved)
                    for name, value in saved.items()
                }
        self._loaded = {}


def is_finished(path: Path) -> bool:
    """Whether a fold's state file exists and records a finished training."""
    if not path.exists():
        return False
    progress = load_tensors(path)[1].get("progress")
    return isinstance(progress, dict) and progress.get("finished") is True


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
