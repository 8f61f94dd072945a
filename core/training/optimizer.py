"""Phases of training, AdamW by part and step, gradient scaling of fp16."""

import math
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, Any

import msgspec
import torch
from lightning_fabric import Fabric
from msgspec import Meta
from torch import Tensor, nn

from core.config.training import TwoPhaseConfig
from core.training.l1_penalty import sparse_parameters


class _Scale(msgspec.Struct, rename={"growth_tracker": "_growth_tracker"}):
    """State of a gradient scaler that changes in training."""

    scale: Annotated[float, Meta(gt=0, le=2.0**127)]
    growth_tracker: Annotated[int, Meta(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Phase:
    """Epochs that train the parts named in `rates` (peak learning rates by part).

    Without "backbone" it is frozen: in eval mode and without gradient. A part of a part ("head.x")
    has its own rate.
    """

    name: str
    epochs: int
    rates: dict[str, float]
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    l1: float = 0.0
    """Strength of the L1 penalty on the parameters that modules name in `sparse`."""
    head_views: int = 0
    """Without "backbone": passes whose features are kept for later epochs (`head_phase`)."""

    @property
    def head_only(self) -> bool:
        """Whether the backbone is frozen."""
        return "backbone" not in self.rates

    def peak_rates(self) -> dict[str, float]:
        """Peak learning rates as metrics.csv names them; 0 for a part that rests."""
        rates = {f"{part.rpartition('.')[2]}_lr": rate for part, rate in self.rates.items()}
        return {"backbone_lr": 0.0, "head_lr": 0.0} | rates


def two_phases(optim: TwoPhaseConfig) -> list[Phase]:
    """A head-only phase (where asked for), then everything."""
    head = Phase(
        "head",
        optim.warmup_head_epochs,
        {"head": optim.warmup_head_lr},
        optim.warmup_head_weight_decay,
        head_views=optim.head_views if optim.head_phase == "cached" else 0,
    )
    rates = {"backbone": optim.backbone_lr, "head": optim.head_lr}
    return [head, Phase("all", optim.epochs, rates, optim.weight_decay, optim.warmup_epochs)]


def build_optimizer(
    model: nn.Module, phase: Phase, *, fused: bool = True, decay_tokens: bool = False
) -> torch.optim.AdamW:
    """AdamW over the parts of `model` named in `phase.rates`.

    Not decayed are biases, norms, per-class scales (all parameters of one dimension), what modules
    name in `sparse`, and (but for `decay_tokens`) what timm's networks name in `no_weight_decay`:
    class and register tokens, position embeddings, tables of relative positions. `fused` lets its
    `found_inf` skip an update on the device; Fabric's gradient scaling cannot clip then.
    """
    sparse = {id(parameter) for parameter in sparse_parameters(model).values()}
    tokens = set() if decay_tokens else _undecayed(model)
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    # a part of a part comes before the whole
    for part in sorted(phase.rates, key=len, reverse=True):
        ours = [p for p in model.get_submodule(part).parameters() if id(p) not in taken]
        taken |= {id(parameter) for parameter in ours}
        dense = [p for p in ours if id(p) not in sparse]
        plain = [p for p in dense if p.ndim <= 1 or id(p) in tokens]
        decayed = [p for p in dense if p.ndim > 1 and id(p) not in tokens]
        peak = {"peak": phase.rates[part], "lr": phase.rates[part], "l1": 0.0}
        groups.append(peak | {"params": decayed, "weight_decay": phase.weight_decay})
        groups.append(peak | {"params": plain, "weight_decay": 0.0})
        penalised = [p for p in ours if id(p) in sparse]
        groups.append(peak | {"params": penalised, "weight_decay": 0.0, "l1": phase.l1})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)


def _undecayed(model: nn.Module) -> set[int]:
    """Ids of biases of several dimensions, and of what a network's `no_weight_decay` names."""
    found = {id(p) for name, p in model.named_parameters() if name.endswith(".bias")}
    for module in model.modules():
        names: set[str] = getattr(module, "no_weight_decay", set)()
        for name, parameter in module.named_parameters() if names else ():
            if any(fnmatch(name, pattern) for pattern in names):
                found.add(id(parameter))
    return found


def make_step(fabric: Fabric, optimizer: Any, *, skip: Tensor) -> None:
    """Apply the gradients, unless `skip` (on the device) is 1, and forget them."""
    if scaler_of(fabric) is None:
        # the fused AdamW leaves weights and moments alone where this is 1
        optimizer.optimizer.found_inf = skip
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def shares_of(fabric: Fabric, known: Tensor) -> Tensor:
    """Weights (A,) of the means over an update's batches, of `known` (A,) labels each.

    With them the sum over A batches, averaged over ranks by DDP, is the mean over all known labels
    of the update.
    """
    total = fabric.all_reduce(known.sum().float(), reduce_op="sum")
    assert isinstance(total, Tensor)
    return known * fabric.world_size / total.clamp(min=1)


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Part of the peak learning rate at `step` of `steps`: linear warm-up, then a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def scaler_of(fabric: Fabric) -> torch.amp.GradScaler | None:
    """What scales gradients and skips updates that overflow; None but for fp16."""
    return getattr(fabric.strategy.precision, "scaler", None)


def scale_state(scaler: torch.amp.GradScaler | None) -> dict[str, float]:
    """State of `scaler` for a resume, as JSON can hold it; waits for the device."""
    state = {} if scaler is None else scaler.state_dict()
    return {name: state[name] for name in _Scale.__struct_encode_fields__ if name in state}


def load_scale(scaler: torch.amp.GradScaler | None, kept: dict[str, Any]) -> None:
    """Give `scaler` what `scale_state` gave. Raises msgspec.ValidationError."""
    if scaler is not None and kept:
        state = msgspec.to_builtins(msgspec.convert(kept, _Scale))
        scaler.load_state_dict(scaler.state_dict() | state)
