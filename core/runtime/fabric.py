"""Fabric under any launcher: processes, precision, threads, seeds."""

import os
import warnings
from typing import Literal

import lightning_fabric
import torch
from lightning_fabric import Fabric

from core.errors import UserError
from core.runtime.log import start_logging
from core.runtime.precision import Amp, precision_options
from core.runtime.ranks import RankRegistry


def preset_for_this_machine() -> str:
    """`paper` with an accelerator, `small` without."""
    return "paper" if torch.accelerator.is_available() else "small"


def make_fabric(*, amp: Amp) -> Fabric:
    """Create and launch Fabric: one device under plain `python`, all devices of a launcher.

    `amp`: see `precision_options`; the precision given to `fabric run` takes priority. Raises
    UserError as they do, and for `fabric run --devices auto`.
    """
    under_cli = os.environ.get("LT_CLI_USED") == "1"
    if under_cli and os.environ.get("LT_DEVICES") == "auto":
        raise UserError(
            "fabric run --devices auto starts a single process; give a number, as in --devices 2"
        )
    options: dict = {} if under_cli else _placement()
    if "LT_PRECISION" not in os.environ:
        options |= precision_options(amp)
    # raised inside lightning-fabric 2.6 with torch 2.14, at each evaluation
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated")
    fabric = Fabric(**options)
    if not under_cli:
        fabric.launch()
    start_logging(is_main=fabric.is_global_zero)
    if fabric.world_size > 1:
        RankRegistry().announce()
    if fabric.device.type != "cpu":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    elif local_processes() > 1:
        # the launcher gives all cores to every process
        torch.set_num_threads(usable_cores())
    return fabric


def local_processes() -> int:
    """Training processes on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def usable_cores() -> int:
    """Processor cores for each training process of this host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // local_processes())


def worker_count(setting: Literal["auto"] | int) -> int:
    """Decoding processes for each training process; "auto": one a core, at most 8."""
    return min(8, usable_cores()) if setting == "auto" else setting


def seed_stream(*parts: int) -> None:
    """Seed torch from `parts` only, as (seed, fold, update, rank): a resume needs no state."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 1_000_003 + part + 0x9E3779B9) % 2**63
    torch.manual_seed(mixed)


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    import albumentations
    import numpy
    import pandas
    import timm

    modules = (torch, lightning_fabric, timm, albumentations, numpy, pandas)
    return {module.__name__: str(module.__version__) for module in modules}


def _placement() -> dict:
    """Devices outside `fabric run`: torchrun's, else one (plain Fabric would take every GPU)."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {"devices": 1}
    local, world = local_processes(), int(os.environ["WORLD_SIZE"])
    strategy = "ddp" if world > 1 else "auto"
    return {"devices": local, "num_nodes": world // local, "strategy": strategy}
