"""Overhead of `FoldTrainer` over a bare loop. Two to three minutes on two CPU cores.

Both train the model of standard_head's preset `small` with its loss, clipping and moving average,
from the same weights and on the same batches in memory, without reading or augmentation. They
alternate by update within one process, as the speed of a shared machine varies within seconds by
more than the difference.
"""

import copy
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from timm.utils import ModelEmaV3
from torch import nn

from benchmarks.runner import Answer, median_round, medians, timed
from core.config.training import SplitConfig
from core.data.images.collection import Images
from core.data.loading.augmentation import Augmentation
from core.data.loading.dataset import Batch
from core.data.loading.fold_data import FoldData
from core.data.loading.loader import DecodingLoader
from core.data.splits.prepare import PreparedData
from core.data.tables.label_table import LabelTable
from core.losses import build_loss
from core.runs.folder import RunFolder
from core.runs.log import FoldLog
from core.runtime.fabric import seed_stream
from core.training.ema import MovingAverage
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase, build_optimizer
from core.training.run import Run
from core.training.step_monitor import StepMonitor
from methods.standard_head.config import small
from methods.standard_head.model import build_model

FLOOR = 0.95
ROUNDS = 5  # of `log_every` updates, each with one log of the loss; the first is warm-up
CLASSES = 14
PREVALENCE = 0.2
VALIDATION = 4  # images
CALLS = 20  # of a part in a row, as one is too short to measure


def answers(folder: Path) -> Iterator[Answer]:
    config = small()
    # FoldTrainer requests no batch after its last, so the end of that update is not measured
    yield from compare(Task(config, updates=ROUNDS * config.loop.log_every + 1), folder)


class Task:
    """Training task of both loops: model, loss and rates of `config`, and random batches.

    `build` makes the model of `config.model`, `rates` are the learning rates of its parts.
    """

    def __init__(
        self,
        config: Any,
        updates: int,
        fabric: Fabric | None = None,
        build: Callable[..., nn.Module] = build_model,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.config = config
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        size, batch = config.loader.img_size, config.loader.batch_size
        count = updates * batch + VALIDATION
        random = torch.Generator().manual_seed(0)
        shape = (count, 1, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        targets = (torch.rand(count, CLASSES, generator=random) < PREVALENCE).float()
        parts = [column.split(batch) for column in (images, targets, torch.arange(count))]
        *self.batches, self.validation = [Batch(*part) for part in zip(*parts, strict=True)]
        self.table = LabelTable(
            ids=[str(row) for row in range(count)],
            images=Images.of_files([""] * count),
            targets=targets.numpy(),
            class_names=tuple(f"class {number}" for number in range(CLASSES)),
        )
        seed_stream(0)
        self._start = build(config.model, CLASSES, img_size=size)
        if rates is None:
            rates = {"backbone": config.optim.backbone_lr, "head": config.optim.head_lr}
        self.phase = Phase("all", 1, dict(rates), config.optim.weight_decay)

    def model(self) -> nn.Module:
        """New model with the same initial weights, in FoldTrainer's memory layout."""
        model = copy.deepcopy(self._start).to(memory_format=torch.channels_last)
        return model.to(self.fabric.device).train()

    def loss(self) -> nn.Module:
        """Loss with the statistics of these labels."""
        settings, targets = self.config.loss, self.table.targets
        counts = (targets == 1).sum(axis=0), len(targets)
        options = settings.build_options(self.config.optim.all_epochs)
        return build_loss(settings.loss, *counts, **options).to(self.fabric.device)


class BareLoop:
    """Minimal equivalent training: no Fabric, no checks, no log, no schedule."""

    def __init__(
        self, task: Task, autocast: Callable[[], AbstractContextManager] = nullcontext
    ) -> None:
        self.device, self.autocast = task.fabric.device, autocast
        self.loss, self.model = task.loss(), task.model()
        self.optimizer = build_optimizer(self.model, task.phase)
        self.clip_norm, self.ema_decay = task.config.optim.clip_norm, task.config.loop.ema_decay
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self._averages, self._values = floating(self.average), floating(self.model)

    def update(self, number: int, batch: Batch) -> None:
        """Do update `number`, from 0."""
        images = batch.images.to(self.device, non_blocking=True)
        targets = batch.targets.to(self.device, non_blocking=True)
        with self.autocast():
            logits = self.model(images)
        self.loss(logits.float(), targets).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.ema_decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)


def floating(model: nn.Module) -> list[torch.Tensor]:
    """The floating-point parameters and buffers of `model`, without gradient."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


class AlternatingBatches(FoldData):
    """Batches of `task` for FoldTrainer, each after the bare loop has trained on it.

    `seconds`: (FoldTrainer, bare loop) by update. FoldTrainer is timed from one batch to its
    request for the next, so everything between two updates is included.
    """

    def __init__(self, task: Task, bare: BareLoop | None) -> None:
        self._task, self._bare = task, bare
        self.seconds: list[tuple[float, float]] = []
        training, validation = np.split(np.arange(len(task.table)), [-VALIDATION])
        augment, loader = Augmentation([], seed=0), task.config.loader
        super().__init__(task.fabric, 1, task.table, training, validation, loader, 1, augment)

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of the only epoch."""
        assert (first_epoch, last_epoch, updates_done) == (0, 1, 0)
        assert self._bare is not None
        for number, batch in enumerate(self._task.batches):
            began = time.perf_counter()
            self._bare.update(number, batch)
            turned = time.perf_counter()
            yield batch
            self.seconds.append((time.perf_counter() - turned, turned - began))

    def validation(self) -> DecodingLoader:
        """One small batch."""
        # a list is enough for a DataLoader
        return DecodingLoader([self._task.validation], batch_size=None)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """Hidden terminal for a progress bar, so that the cost of drawing it is included."""

    def isatty(self) -> bool:
        """True, for tqdm."""
        return True


def fit(task: Task, data: FoldData, folder: Path) -> nn.Module:
    """Train by FoldTrainer on `data`; returns the moving average."""
    run = Run(
        method="standard_head",
        config=replace(task.config, split=SplitConfig(seed=0)),
        fabric=task.fabric,
        prepared=PreparedData(task.table, np.zeros(len(task.table), dtype=np.int64), (1,)),
        data=[data],
        folder=RunFolder(folder, "model"),
    )
    trainer = FoldTrainer(run, data, task.model(), task.loss(), [task.phase])
    with redirect_stdout(io.StringIO()), redirect_stderr(Terminal()):
        trainer.fit()
    assert trainer.average is not None
    return trainer.average.module


def compare(task: Task, folder: Path) -> Iterator[Answer]:
    """Answers: rounds of `log_every` updates, and each part by itself."""
    data = AlternatingBatches(task, BareLoop(task))
    fit(task, data, folder)
    every, images = task.config.loop.log_every, task.config.loader.batch_size
    taken = np.array(data.seconds[every:])
    rounds = taken[: len(taken) // every * every].reshape(-1, every, 2).mean(axis=1)
    speed, bare = median_round(
        [(images / ours, images / theirs) for ours, theirs in rounds.tolist()]
    )
    yield Answer("FoldTrainer, training", "images/s", "bare loop", speed, bare, floor=FLOOR)
    spent = medians(parts(task))
    theirs = spent.pop("timm")
    for name, took in spent.items():
        yield Answer(f"an update's {name}", "ms", "bare update", took * 1000, images / bare * 1000)
    speeds = 1 / spent["moving average"], 1 / theirs
    what = "moving average, updates a second"
    yield Answer(what, "/s", "timm's ModelEmaV3", *speeds, floor=FLOOR)


def parts(task: Task) -> dict[str, Callable[[], float]]:
    """By name, functions that return the seconds of one part of an update."""
    fabric, loss, batch, model = task.fabric, task.loss(), task.batches[0], task.model()
    logits = torch.randn_like(batch.targets).requires_grad_()
    decay, updates = task.config.loop.ema_decay, len(task.batches)
    average = MovingAverage(task.model(), decay)
    timm = ModelEmaV3(model, decay=decay, use_warmup=True)
    clipped = task.model()
    loss(clipped(batch.images), batch.targets).backward()
    optimizer = fabric.setup_optimizers(build_optimizer(clipped, task.phase))
    assert isinstance(optimizer, _FabricOptimizer)
    wrapped, norm = fabric.setup_module(clipped), task.config.optim.clip_norm
    grad, clip = torch.autograd.grad, partial(fabric.clip_gradients, error_if_nonfinite=False)
    calls = {
        "loss, forward and backward": lambda: grad(loss(logits, batch.targets), logits),
        "moving average": lambda: average.update(updates),
        "clipping": lambda: clip(wrapped, optimizer, max_norm=norm),
        "timm": lambda: timm.update(model, step=updates),
    }
    logging = {"share of a look: finite check, loss, bar": logging_part(task)}
    return {name: timed(call, CALLS) for name, call in calls.items()} | logging


def logging_part(task: Task) -> Callable[[], float]:
    """Seconds to advance the bar by an update, and its share of the log every `log_every`."""
    every, images = task.config.loop.log_every, task.config.loader.batch_size
    minutes = task.config.loop.save_minutes
    monitor = StepMonitor(task.fabric, [], str, remember=every, save_minutes=minutes)
    files = Path("metrics.csv"), Path("timing.csv")
    log = FoldLog(*files, title="fold 1/1", is_main=True)
    sums = torch.ones(2, dtype=torch.float64)

    def log_loss() -> None:
        monitor.decide()
        total, known = sums.tolist()
        log.loss(total / known)

    def measure() -> float:
        with redirect_stderr(Terminal()):
            log.start(every * images, 0)
        spent = 0.0
        for _ in range(every):
            # a bar is redrawn every 0.1 s at most, and an update takes longer
            time.sleep(0.11)
            spent += timed(lambda: log.advance(images))()
        spent += timed(log_loss)()
        log.close()
        return spent / every

    return measure
