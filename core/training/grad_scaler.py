"""Gradient scaling of fp16: updates that overflow are skipped, which is counted and told."""

from typing import Any

import torch
from lightning_fabric import Fabric

from core.errors import UserError, counted

MOST_SCALE = 2.0**127


def scaler_of(fabric: Fabric) -> torch.amp.GradScaler | None:
    """What scales gradients and skips updates that overflow; None but for fp16."""
    return getattr(fabric.strategy.precision, "scaler", None)


def scales(fabric: Fabric) -> bool:
    """Whether fp16 gradient scaling is on."""
    return scaler_of(fabric) is not None


def kept_scale(scaler: torch.amp.GradScaler | None) -> dict[str, float]:
    """What a stopped run needs of `scaler` to go on, as JSON can hold it; waits for the device."""
    return {} if scaler is None else _own(scaler.state_dict())


def take_up_scale(scaler: torch.amp.GradScaler | None, kept: dict[str, Any]) -> None:
    """Give `scaler` what `kept_scale` gave; an older state kept nothing. Raises TypeError."""
    if scaler is None or not kept:
        return
    scale, steps = kept["scale"], kept["_growth_tracker"]
    if type(scale) is not float or type(steps) is not int:
        raise TypeError("its gradient scale is no number")
    if not 0 < scale <= MOST_SCALE or not 0 <= steps < 2**31:
        raise TypeError(f"its gradient scale cannot be {scale} for {steps} steps")
    scaler.load_state_dict(scaler.state_dict() | _own(kept))


def check_scale(fabric: Fabric, skipped: int, where: str) -> None:
    """Raise UserError where even gradients that are scaled down overflow; waits for the device.

    `skipped` updates of the epoch are told, and `where` it is.
    """
    scaler = scaler_of(fabric)
    if scaler is not None and scaler.get_scale() < 1:
        raise UserError(
            f"gradients overflow fp16 at any scale ({where}, {counted(skipped, 'update')} "
            "skipped): go on from the last state by `fabric run --precision 32-true` (or "
            "bf16-mixed), or start anew with lower learning rates in another --out_dir"
        )


def told_skipped(skipped: int, updates: int) -> str:
    """A sentence where an epoch skipped all its `updates`; "" where it made one."""
    if skipped < updates:
        return ""
    return (
        "Warning: every update of this epoch overflowed fp16 and was skipped: nothing was learnt "
        "in it."
    )


def _own(state: dict[str, Any]) -> dict[str, Any]:
    """Of a scaler's state what changes in training."""
    return {name: state[name] for name in ("scale", "_growth_tracker")}
