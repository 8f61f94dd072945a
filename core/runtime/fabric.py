"""Start Fabric under any launcher: processes, precision, threads, seeds."""

import os
import warnings
from typing import Literal

import lightning_fabric
import torch
from lightning_fabric import Fabric

from core.errors import UserError
from core.runtime.ranks import Roll


def preset_for_this_machine() -> str:
    """`paper` where an accelerator is present, `small` on a CPU."""
    return "paper" if torch.accelerator.is_available() else "small"


def make_fabric(*, amp: bool) -> Fabric:
    """A launched Fabric: one device under plain `python`, all given ones under a launcher.

    `amp` asks for autocast on a GPU: bf16, or fp16 with scaling where bf16 is missing. A precision
    given to `fabric run` wins. Raises UserError for `fabric run --devices auto`.
    """
    under_cli = os.environ.get("LT_CLI_USED") == "1"
    if under_cli and os.environ.get("LT_DEVICES") == "auto":
        raise UserError(
            "fabric run --devices auto starts a single process; give a number, as in --devices 2"
        )
    options: dict = {} if under_cli else _placement()
    if "LT_PRECISION" not in os.environ:
        options["precision"] = _precision(amp)
    # Fabric's own affair (torch 2.14 with lightning-fabric 2.6), said at each evaluation
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated")
    fabric = Fabric(**options)
    if not under_cli:
        fabric.launch()
    if fabric.world_size > 1:
        Roll().announce()
    if fabric.device.type != "cpu":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    elif local_processes() > 1:
        # the launcher gives every process all cores
        torch.set_num_threads(usable_cores())
    return fabric


def local_processes() -> int:
    """Training processes on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def usable_cores() -> int:
    """Processor cores that each training process of this host can have."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // local_processes())


def worker_count(asked: Literal["auto"] | int) -> int:
    """Decoding processes for each training process; "auto": one a core, at most 8."""
    return min(8, usable_cores()) if asked == "auto" else asked


def seed_stream(*parts: int) -> None:
    """Seed torch from `parts` alone, as in (seed, fold, update, rank): a resume needs no state."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 1_000_003 + part + 0x9E3779B9) % 2**63
    torch.manual_seed(mixed)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import albumentations
    import numpy
    import pandas
    import timm

    modules = (torch, lightning_fabric, timm, albumentations, numpy, pandas)
    return {module.__name__: str(module.__version__) for module in modules}


def _precision(amp: bool) -> str:
    if not amp or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _placement() -> dict:
    """Devices outside `fabric run`: torchrun's, else one (plain Fabric would take every GPU)."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {"devices": 1}
    local, world = local_processes(), int(os.environ["WORLD_SIZE"])
    strategy = "ddp" if world > 1 else "auto"
    return {"devices": local, "num_nodes": world // local, "strategy": strategy}
