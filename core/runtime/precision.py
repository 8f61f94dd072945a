"""Precision: autocast on a GPU, and on a CPU with --amp where a measurement shows a gain."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from core.errors import UserError
from core.runtime.log import logger

Amp = Literal["auto", "on", "off"]
# images of a timed step, and timed steps of each precision after one that is not counted
IMAGES = 8
_STEPS = 3
_FEATURES = {"AMX": "_is_amx_tile_supported", "AVX-512 BF16": "_is_avx512_bf16_supported"}


class SwitchedAutocast(MixedPrecision):
    """bf16 autocast on a CPU; fp32 until `is_on`."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")
        self.is_on = False

    def forward_context(self) -> AbstractContextManager:
        """Autocast, or nothing."""
        return super().forward_context() if self.is_on else nullcontext()

    def convert_input(self, data: Any) -> Any:
        """Inputs of a module in the precision of its computation."""
        return super().convert_input(data) if self.is_on else data

    def convert_output(self, data: Any) -> Any:
        """Outputs of a module in fp32."""
        return super().convert_output(data) if self.is_on else data


def bf16_of_cpu() -> str:
    """Name of the processor's instructions for bf16; "" without."""
    found = (name for name, test in _FEATURES.items() if getattr(torch.cpu, test, bool)())
    return next(found, "")


def precision_options(amp: Amp) -> dict[str, Any]:
    """Options of Fabric for --amp.

    On a GPU `auto` and `on` are bf16, or fp16 with gradient scaling if bf16 is missing. On a CPU
    `on` leaves the choice to `choose_precision`, and `auto` is fp32. Raises UserError for `on`
    with another accelerator.
    """
    if amp != "off" and torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"precision": "bf16-mixed" if has_bf16 else "16-mixed"}
    if amp != "on":
        return {"precision": "32-true"}
    if torch.accelerator.is_available():
        raise _unavailable()
    return {"plugins": [SwitchedAutocast()]}


def can_gain(fabric: Fabric, amp: Amp) -> bool:
    """Whether this CPU has bf16 and --amp was not given."""
    chosen = amp != "auto" or "LT_PRECISION" in os.environ
    return not chosen and fabric.device.type == "cpu" and bool(bf16_of_cpu())


def advise_amp(fabric: Fabric, amp: Amp, measure: str = "") -> None:
    """Print what --amp would gain, where it can; `measure` is a sentence on how to measure it."""
    if can_gain(fabric, amp):
        logger.info(
            f"This processor computes bf16 ({bf16_of_cpu()}): --amp times it before the start and "
            "takes the faster precision. ResNet-50 and ConvNeXt-Tiny ran 1.5 to 2.5 times as "
            "fast; light networks may lose, and probabilities change a little (docs/results.md)."
            f"{measure}"
        )


def training_step(
    model: nn.Module, autocast: MixedPrecision, images: int, size: int, frozen: bool
) -> Callable[[], None]:
    """Update of `model` by random images (N, 1, S, S), or a forward pass of a `frozen` one."""
    batch = torch.randint(0, 256, (images, 1, size, size), dtype=torch.uint8)
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with torch.set_grad_enabled(not frozen), autocast.forward_context():
            logits = model(batch)
        if not frozen:
            logits.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def log_gain(autocast: SwitchedAutocast, step: Callable[[], object], images: int) -> None:
    """Print the speeds of `step` with `images` images in both precisions."""
    speeds = _speeds(autocast, step, images)
    faster = max(speeds, key=speeds.__getitem__)
    logger.info(f"Precision    {_shown(speeds, images)}: --amp would use {faster}.")


def choose_precision(
    fabric: Fabric, step: Callable[[], object], images: int, recorded: str | None = None
) -> str | None:
    """Precision of a computation on a CPU with --amp, "bf16" or "fp32"; None without a choice.

    The `recorded` one, or the faster of `step` with `images` images, timed on the first rank and
    used on all. Raises UserError for a processor without bf16.
    """
    autocast = fabric.strategy.precision
    if not isinstance(autocast, SwitchedAutocast):
        return None
    chosen = recorded
    if chosen is None:
        if not bf16_of_cpu():
            raise _unavailable()
        if fabric.is_global_zero:
            speeds = _speeds(autocast, step, images)
            chosen = max(speeds, key=speeds.__getitem__)
            logger.info(f"Precision    {_shown(speeds, images)}: {chosen} is used (--amp).")
        chosen = fabric.broadcast(chosen)
    else:
        logger.info(f"Precision    {chosen}, as at the first start (--amp).")
    autocast.is_on = chosen == "bf16"
    return chosen


def _unavailable() -> UserError:
    return UserError(
        f"--amp needs a CUDA GPU, or a processor with {' or '.join(_FEATURES)}, and this machine "
        "has neither: leave it out"
    )


def _shown(speeds: dict[str, float], images: int) -> str:
    found = ", ".join(f"{name} {speed:.3g} images/s" for name, speed in speeds.items())
    return f"{found} (steps of {images})"


def _speeds(
    autocast: SwitchedAutocast, step: Callable[[], object], images: int
) -> dict[str, float]:
    """Images a second of `step` in both precisions, in alternation."""
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(1 + _STEPS):
        for name, values in seconds.items():
            autocast.is_on = name == "bf16"
            began = time.perf_counter()
            step()
            values.append(time.perf_counter() - began)
    return {name: images / median(values[1:]) for name, values in seconds.items()}
