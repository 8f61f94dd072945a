"""Phases of training, and AdamW with a learning rate for backbone and head by step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from core.config import OptimConfig


@dataclass(frozen=True)
class Phase:
    """Epochs that train the parts named in `rates` (peak learning rates by part).

    With "head" alone the backbone is frozen: in eval mode and without gradient.
    """

    name: str
    epochs: int
    rates: dict[str, float]
    warmup_epochs: float = 0.0


def standard_phases(optim: OptimConfig) -> list[Phase]:
    """A head-only phase (where asked for), then everything."""
    head = Phase("head", optim.warmup_head_epochs, {"head": optim.warmup_head_lr})
    rates = {"backbone": optim.backbone_lr, "head": optim.head_lr}
    return [head, Phase("all", optim.epochs, rates, optim.warmup_epochs)]


def build_optimizer(
    model: nn.Module,
    learning_rates: dict[str, float],
    weight_decay: float,
    *,
    fused: bool = True,
) -> torch.optim.AdamW:
    """AdamW over the parts of `model` named in `learning_rates` ("backbone", "head": peak rates).

    Biases, norms and per-class scales (all parameters of one dimension) are not decayed. `fused`
    lets its `found_inf` skip an update on the device; Fabric's gradient scaling cannot clip then.
    """
    groups = []
    for part, rate in learning_rates.items():
        parameters = list(getattr(model, part).parameters())
        decayed = [parameter for parameter in parameters if parameter.ndim > 1]
        plain = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": weight_decay, "peak": rate})
        groups.append({"params": plain, "weight_decay": 0.0, "peak": rate})
    groups = [group | {"lr": group["peak"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, fused=fused)


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Part of the peak learning rate at `step` of `steps`: linear warm-up, then a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
