"""Training loops on batches in memory: ours, a bare one, timm's; compiled, and in fp16."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pandas as pd
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad

from benchmarks.gpu.plan import Figure, Known, Plan, build, phases
from benchmarks.runner import median_round
from benchmarks.speed.step import FLOOR, AlternatingBatches, BareLoop, Task, fit
from core.data.loading.dataset import Batch


class Loop(Protocol):
    """A training loop that is compared with ours."""

    def update(self, number: int, batch: Batch) -> None:
        """Do update `number`, from 0."""


class TimmLoop:
    """Loop of timm's train.py from timm's parts: AdamW, clipping, ModelEmaV3, schedule, meter."""

    def __init__(self, plan: Plan, task: Task) -> None:
        self.plan, self.device = plan, task.fabric.device
        self.loss, self.model, optim = task.loss(), task.model(), task.config.optim
        self.clip_norm = optim.clip_norm
        rate, decay = task.phase.rates["backbone"], optim.weight_decay
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=rate, weight_decay=decay)
        self.average = ModelEmaV3(self.model, decay=task.config.loop.ema_decay, use_warmup=True)
        count = len(task.batches)
        made = create_scheduler_v2(self.optimizer, num_epochs=1, updates_per_epoch=count)
        self.scheduler, self.losses = made[0], AverageMeter()

    def update(self, number: int, batch: Batch) -> None:
        images = batch.images.to(self.device, non_blocking=True)
        targets = batch.targets.to(self.device, non_blocking=True)
        with self.plan.autocast():
            loss = self.loss(self.model(images), targets)
        loss.backward()
        dispatch_clip_grad(self.model.parameters(), value=self.clip_norm, mode="norm")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.model, step=number)
        if self.scheduler is not None:
            self.scheduler.step_update(num_updates=number)
        if (number + 1) % self.plan.updates == 0:
            self.losses.update(loss.item(), len(images))


class Rounds(AlternatingBatches):
    """Batches in rounds of `plan.updates`: each of `loops` trains on them, then FoldTrainer.

    `took`: seconds of each round by name of the loop, "ours" for FoldTrainer. The device is waited
    for only between rounds, so that the host may run ahead of it.
    """

    def __init__(self, plan: Plan, task: Task, loops: Mapping[str, Loop]) -> None:
        super().__init__(task, None)
        self._plan, self._loops = plan, loops
        self.took: list[dict[str, float]] = []

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of the only epoch."""
        every = self._plan.updates
        for first in range(0, len(self._task.batches), every):
            batches, took = self._task.batches[first : first + every], {}
            for name, loop in self._loops.items():
                began = self._now()
                for number, batch in enumerate(batches, start=first):
                    loop.update(number, batch)
                took[name] = self._now() - began
            began = self._now()
            yield from batches
            took["ours"] = self._now() - began
            self.took.append(took)

    def _now(self) -> float:
        self._plan.wait()
        return time.perf_counter()

    def speeds(self, name: str = "ours") -> list[float]:
        """Images a second of a loop in each round but the first."""
        images = self._plan.updates * self._task.config.loader.batch_size
        return [images / took[name] for took in self.took[1:]]


def in_memory(plan: Plan, method: str, *, compiled: bool = False, precision: str = "") -> Task:
    """Task of the method's model and loss at the plan's size, on random batches."""
    config = plan.config(method)
    config = replace(config, loop=replace(config.loop, compile=compiled))
    rates = next(phase for phase in phases(config) if not phase.head_only).rates
    # FoldTrainer requests no batch after its last, so the end of that update is not measured
    updates = plan.rounds * plan.updates + 1
    task = Task(config, updates, plan.fabric(precision), build(method), rates)
    if plan.device == "cuda":
        parts = [[part.pin_memory() for part in batch[:3]] for batch in task.batches]
        task.batches = [Batch(*part) for part in parts]
    return task


def compare_loops(plan: Plan, method: str, folder: Path, known: Known) -> Iterator[Figure]:
    """Images a second of FoldTrainer over a bare loop and over timm's, in alternation."""
    task = in_memory(plan, method)
    loops: dict[str, Loop] = {
        "bare loop": BareLoop(task, plan.autocast),
        "timm's loop": TimmLoop(plan, task),
    }
    data = Rounds(plan, task, loops)
    fit(task, data, folder)
    known.speeds[method] = statistics.median(data.speeds())
    for name in loops:
        pair = median_round(list(zip(data.speeds(), data.speeds(name), strict=True)))
        yield Figure(f"{method}: training", "images/s", name, *pair, floor=FLOOR)


def compare_compiled(plan: Plan, method: str, folder: Path, known: Known) -> Iterator[Figure]:
    """Images a second with --compile, without the first round, in which it compiles."""
    task = in_memory(plan, method, compiled=True)
    data = Rounds(plan, task, {})
    fit(task, data, folder)
    speed, what = statistics.median(data.speeds()), f"{method}: training, --compile"
    yield Figure(what, "images/s", "without", speed, known.speed(method))


def compare_fp16(plan: Plan, method: str, folder: Path, known: Known) -> Iterator[Figure]:
    """Images a second in fp16 with scaling, and updates that overflowed and were skipped."""
    task = in_memory(plan, method, precision="16-mixed")
    data = Rounds(plan, task, {})
    fit(task, data, folder)
    speed, what = statistics.median(data.speeds()), f"{method}: training, fp16"
    yield Figure(what, "images/s", plan.precision, speed, known.speed(method))
    skipped = float(pd.read_csv(folder / "timing.csv")["skipped"].sum())
    yield Figure(f"{method}: fp16, skipped", "updates", "all", skipped, len(task.batches))
