"""Plan of the GPU benchmark: device, networks, sizes and amounts, and rows of its table."""

import gc
import importlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from benchmarks.runner import Answer
from core.data.loading.augmentation import crop_transforms, light_transforms, strong_transforms
from core.runtime.fabric import versions
from core.training.optimizer import Phase, two_phases
from methods.label_coupling.recipe import build_phases

# Images in a batch that fit 16 GB at the network and size of `paper`, with the states of the three
# loops that are compared: 20 bytes a parameter each (weights, gradients, moments, average; 1.8 GB
# of ConvNeXtV2-Base, 0.9 GB of SE-ResNeXt-101), and what autograd keeps for the backward pass by
# `saved_tensors_hooks` under bf16 autocast: 0.95 GB an image of 512 px, 0.31 GB of 380 px. Together
# about 11 GB and 10 GB, which leaves the rest for workspaces, gradients in flight and the context.
FITTING = {"standard_head": 6, "csra_db_cas": 6, "label_coupling": 24}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how much of it."""

    device: str = "cuda"
    preset: str = "paper"
    model: str = ""
    """timm model; "": the preset's."""
    img_size: int = 0
    """Image size; 0: the preset's."""
    batches: Mapping[str, int] = field(default_factory=lambda: dict(FITTING))
    """Images in a batch by method; these methods are measured."""
    precision: str = "bf16-mixed"
    rounds: int = 6
    """Rounds of each loop, in alternation; the first is not counted."""
    updates: int = 10
    """Updates in a round, with one log of the loss."""
    epoch: int = 31
    """Updates of an epoch that reads the pack: the last of some rounds is not measured."""
    images: int = 160
    """Training images of the phantom."""
    workers: Literal["auto"] | int = "auto"
    budget: float = 420.0
    """Seconds after which no further measurement starts."""

    def config(self, method: str, batch: int = 0) -> Any:
        """Settings of `method` without pretrained weights, at `batch` (default: the plan's)."""
        config = importlib.import_module(f"methods.{method}.config").PRESETS[self.preset]()
        size, name = self.img_size or config.loader.img_size, self.model or config.model.model
        batch = batch or self.batches[method]
        loader = {"img_size": size, "batch_size": batch, "num_workers": self.workers}
        return replace(
            config,
            model=replace(config.model, model=name, pretrained=False),
            loader=replace(config.loader, **loader),
            loop=replace(config.loop, log_every=self.updates),
        )

    def fabric(self, precision: str = "") -> Fabric:
        """Fabric on the plan's device, with the settings of `make_fabric`."""
        if self.device != "cpu":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        # several processes on one device are as many nodes to Fabric
        several: dict[str, Any] = {"num_nodes": self.ranks, "strategy": "ddp"}
        spread = several if self.ranks > 1 else {}
        given: Any = precision or self.precision
        fabric = Fabric(accelerator=self.device, devices=1, precision=given, **spread)
        fabric.launch()
        return fabric

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def autocast(self) -> AbstractContextManager:
        """Plain autocast of the plan's precision."""
        kind = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device, dtype=kind)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def reset_memory(self) -> None:
        """Free unused memory and start to count its peak again; a CPU's count has no reset."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gigabytes(self) -> float:
        """Peak memory of tensors since the reset, as of `--dry_run`; on a CPU, of the process."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 1e9
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    def environment(self) -> dict[str, str]:
        """Names and versions of device, driver and packages."""
        found = {"device": "cpu", "driver": "", "cuda": "", "python": sys.version.split()[0]}
        if self.device == "cuda":
            about = torch.cuda.get_device_properties(0)
            found["device"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
            found |= {"driver": _driver(), "cuda": str(torch.version.cuda)}
        return found | versions()


def _driver() -> str:
    """Version of NVIDIA's driver; "" where it does not report it."""
    if shutil.which("nvidia-smi") is None:
        return ""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("\n")[0]


def build(method: str) -> Any:
    """`build_model` of the method."""
    return importlib.import_module(f"methods.{method}.model").build_model


def transforms(method: str, config: Any) -> list[Any]:
    """Augmentation of the method's recipe."""
    size = config.loader.img_size
    if method == "csra_db_cas":
        return strong_transforms(size)
    if method == "label_coupling":
        rotation, jitter = config.augment.rotation, config.augment.color_jitter
        return crop_transforms(size, rotation=rotation, jitter=jitter)
    return light_transforms()


def phases(config: Any) -> list[Phase]:
    """Phases of the method's recipe."""
    if hasattr(config.model, "refiner"):
        return build_phases(config.optim, refiner=config.model.refiner)
    return two_phases(config.optim)


@dataclass(frozen=True)
class Known:
    """Results, by method, that later measurements are compared with."""

    speeds: dict[str, float] = field(default_factory=dict)
    """Images a second of FoldTrainer on batches in memory."""
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Weights after a training that was not stopped."""

    def speed(self, method: str) -> float:
        """NaN if it was not measured."""
        return self.speeds.get(method, math.nan)


@dataclass(frozen=True)
class Figure(Answer):
    """Row of the GPU table; NaN stands for a figure that was not measured."""

    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """Reason why it was not measured."""
    failed: bool = False

    @classmethod
    def missing(
        cls, question: str, note: str, environment: Mapping[str, str], *, failed: bool = False
    ) -> "Figure":
        """Row of a measurement that failed, or that was not reached."""
        nan = math.nan
        return cls(question, "", "", nan, nan, environment=environment, note=note, failed=failed)

    @property
    def ratio(self) -> float:
        return self.measured / self.reference if self.reference else math.nan

    @property
    def verdict(self) -> str | None:
        return "MISSED" if self.failed else super().verdict

    def record(self) -> dict[str, Any]:
        found = asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}
        missing = [name for name, value in found.items() if isinstance(value, float)]
        return found | {name: None for name in missing if not math.isfinite(found[name])}

    def __str__(self) -> str:
        if not math.isnan(self.measured):
            return super().__str__()
        return f"{self.question:<52} {'not measured':>18} ({self.note})"
