"""Training phases, AdamW parameter groups, learning rates, fp16 gradient scaling."""

import math
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, Any

import msgspec
import torch
from lightning_fabric import Fabric
from msgspec import Meta
from timm.models import group_parameters
from torch import Tensor, nn

from core.config.training import OptimConfig, TwoPhaseConfig
from core.errors import UserError
from core.training.l1_penalty import sparse_parameters


class _Scale(msgspec.Struct, rename={"growth_tracker": "_growth_tracker"}):
    """Saved state of a gradient scaler."""

    scale: Annotated[float, Meta(gt=0, le=2.0**127)]
    growth_tracker: Annotated[int, Meta(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Phase:
    """Epochs that train the modules named in `rates` (peak learning rates by module).

    Without "backbone" the backbone is frozen: eval mode, no gradient. A submodule ("head.x") may
    have its own rate. Weight decay is that of AdamW; warm-up is linear, in epochs, and then a
    cosine lowers the rates to 0.
    """

    name: str
    epochs: int
    rates: dict[str, float]
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    l1: float = 0.0
    """Strength of the L1 penalty on `sparse` parameters."""
    head_views: int = 0
    """Without "backbone": passes to cache for later epochs (`head_phase`)."""
    layer_decay: float = 1.0
    """Learning rate of a layer of the backbone relative to that of the layer above."""
    sampler: str = ""
    """Sampler of a phase that trains the head again; "": that of the fold."""

    @property
    def head_only(self) -> bool:
        """Whether the backbone is frozen."""
        return "backbone" not in self.rates

    def peak_rates(self) -> dict[str, float]:
        """Peak learning rates by column of metrics.csv; 0 for a frozen module."""
        rates = {f"{part.rpartition('.')[2]}_lr": rate for part, rate in self.rates.items()}
        return {"backbone_lr": 0.0, "head_lr": 0.0} | rates


def two_phases(optim: TwoPhaseConfig) -> list[Phase]:
    """A head-only phase, then one that trains the whole model, then `retraining`.

    Any may have 0 epochs. With --freeze_backbone the first has those of the second.
    """
    frozen = optim.freeze_backbone
    head = Phase(
        "head",
        optim.warmup_head_epochs + (optim.epochs if frozen else 0),
        {"head": optim.warmup_head_lr},
        optim.warmup_head_weight_decay,
        head_views=optim.cached_passes,
    )
    whole = Phase(
        "all",
        0 if frozen else optim.epochs,
        {"backbone": optim.backbone_lr, "head": optim.head_lr},
        optim.weight_decay,
        optim.warmup_epochs,
        layer_decay=optim.layer_decay,
    )
    return [head, whole, retraining(optim)]


def retraining(optim: OptimConfig) -> Phase:
    """The phase that trains the head again by another sampler (cRT, Kang 2020)."""
    return Phase(
        "retrain",
        optim.retrain_epochs,
        {"head": optim.retrain_lr},
        optim.weight_decay,
        head_views=optim.cached_passes,
        sampler=optim.retrain_sampler,
    )


def build_optimizer(
    model: nn.Module, phase: Phase, *, fused: bool = True, decay_tokens: bool = False
) -> torch.optim.AdamW:
    """AdamW over the modules of `model` named in `phase.rates`.

    No weight decay on: parameters of one dimension (biases, norms, per-class scales), `sparse`
    parameters, and, unless `decay_tokens`, what timm's networks list in `no_weight_decay` (class
    and register tokens, position embeddings, tables of relative positions). A `fused` optimizer can
    skip an update on the device by `found_inf`; Fabric's gradient scaling cannot clip with it.
    Raises UserError for a layer decay and a network without layer groups.
    """
    sparse = {id(parameter) for parameter in sparse_parameters(model).values()}
    tokens = set() if decay_tokens else _undecayed(model)
    scales: dict[int, float] = {}
    if phase.layer_decay < 1 and not phase.head_only:
        scales = layer_scales(model.get_submodule("backbone.network"), phase.layer_decay)
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    # submodules before the modules that contain them
    for part in sorted(phase.rates, key=len, reverse=True):
        ours = [p for p in model.get_submodule(part).parameters() if id(p) not in taken]
        taken |= {id(parameter) for parameter in ours}
        for scale in sorted({scales.get(id(p), 1.0) for p in ours}, reverse=True):
            layer = [p for p in ours if scales.get(id(p), 1.0) == scale]
            dense = [p for p in layer if id(p) not in sparse]
            undecayed = [p for p in dense if p.ndim <= 1 or id(p) in tokens]
            decayed = [p for p in dense if p.ndim > 1 and id(p) not in tokens]
            rate = scale * phase.rates[part]
            peak = {"peak": rate, "lr": rate, "l1": 0.0}
            groups.append(peak | {"params": decayed, "weight_decay": phase.weight_decay})
            groups.append(peak | {"params": undecayed, "weight_decay": 0.0})
            penalised = [p for p in layer if id(p) in sparse]
            groups.append(peak | {"params": penalised, "weight_decay": 0.0, "l1": phase.l1})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)


def layer_scales(network: nn.Module, decay: float) -> dict[int, float]:
    """`decay` to the power of the number of layers above, by the id of a parameter of `network`.

    Layers are the groups of timm's `param_groups_layer_decay`. Raises UserError if it has none.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    layers = group_parameters(network, matcher(coarse=False), reverse=True) if matcher else {}
    last = max(layers.values(), default=0)
    if not last:
        raise UserError(
            f"timm does not divide {type(network).__name__} into layers, as --layer_decay needs: "
            "leave it out, or give another --model"
        )
    return {id(p): decay ** (last - layers[name]) for name, p in network.named_parameters()}


def _undecayed(model: nn.Module) -> set[int]:
    """Ids of all biases, and of the parameters listed in a network's `no_weight_decay`."""
    found = {id(p) for name, p in model.named_parameters() if name.endswith(".bias")}
    for module in model.modules():
        names: set[str] = getattr(module, "no_weight_decay", set)()
        for name, parameter in module.named_parameters() if names else ():
            if any(fnmatch(name, pattern) for pattern in names):
                found.add(id(parameter))
    return found


def make_step(fabric: Fabric, optimizer: Any, *, skip: Tensor) -> None:
    """Apply the gradients, unless `skip` (on the device) is 1, and reset them."""
    if get_scaler(fabric) is None:
        # the fused AdamW does not change weights and moments where this is 1
        optimizer.optimizer.found_inf = skip
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def batch_weights(fabric: Fabric, known: Tensor) -> Tensor:
    """Weights (A,) of an update's batches with `known` (A,) labels each.

    The weighted sum of the batches' mean losses, averaged over ranks by DDP, is the mean over all
    known labels of the update.
    """
    total = fabric.all_reduce(known.sum().float(), reduce_op="sum")
    assert isinstance(total, Tensor)
    return known * fabric.world_size / total.clamp(min=1)


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Fraction of the peak learning rate at `step` of `steps`: linear warm-up, cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def get_scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The gradient scaler of fp16, which skips updates that overflow; None otherwise."""
    return getattr(fabric.strategy.precision, "scaler", None)


def scale_state(scaler: torch.amp.GradScaler | None) -> dict[str, float]:
    """JSON-able state of `scaler`; waits for the device."""
    state = {} if scaler is None else scaler.state_dict()
    return {name: state[name] for name in _Scale.__struct_encode_fields__ if name in state}


def load_scale(scaler: torch.amp.GradScaler | None, saved: dict[str, Any]) -> None:
    """Restore what `scale_state` returned. Raises msgspec.ValidationError."""
    if scaler is not None and saved:
        state = msgspec.to_builtins(msgspec.convert(saved, _Scale))
        scaler.load_state_dict(scaler.state_dict() | state)
