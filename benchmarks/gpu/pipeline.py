"""Training from a pack: waiting for data, peak memory, and a resume."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from benchmarks.gpu.plan import Figure, Known, Plan, build, phases, transforms
from benchmarks.images import make_pack
from core.data.loading.dataset import Batch
from core.data.loading.fold_data import FoldData
from core.data.phantom.dataset import make_phantom
from core.training.loop import FoldTrainer
from core.training.run import open_folder, prepare_run

LIMIT = 5  # % of the time, waiting for data
DRAWN = 256  # pixels of the phantom, which a pack resizes


class TimedFold(FoldData):
    """Fold that times its training batches, each with its update, from the second one on."""

    plan: Plan
    stop_at: int
    count, waited, seconds = 0, 0.0, 0.0

    @classmethod
    def of(cls, fold: FoldData, plan: Plan, stop_at: int) -> Self:
        """The same fold; a stop is requested with batch `stop_at`, unless that is 0."""
        made = cls.__new__(cls)
        vars(made).update(vars(fold), plan=plan, stop_at=stop_at)
        return made

    def training(self, first_epoch: int, last_epoch: int, updates_done: int) -> Iterator[Batch]:
        """Batches of `FoldData.training`."""
        batches = super().training(first_epoch, last_epoch, updates_done)
        # the first one includes the start of the workers
        yield next(batches)
        self.plan.wait()
        began, waited = time.perf_counter(), 0.0
        self.count = 0
        while True:
            asked = time.perf_counter()
            self.waited, self.seconds = waited, asked - began
            batch = next(batches, None)
            if batch is None:
                return
            waited += time.perf_counter() - asked
            if self.count + 2 == self.stop_at:
                signal.raise_signal(signal.SIGTERM)
            yield batch
            self.count += 1


@dataclass(frozen=True)
class Trained:
    """A short training of one fold."""

    model: nn.Module
    weights: dict[str, Tensor]
    speed: float
    """Images a second of this process."""
    waiting: float
    """Percentage of the time that the host waits for data; the device may be busy meanwhile."""
    gigabytes: float
    """Peak memory."""


def make_data(plan: Plan, folder: Path) -> Path:
    """Draw a phantom and pack it at each image size; the packs lie beside its images."""
    make_phantom(folder, plan.images, DRAWN)
    for size in {plan.config(method).loader.img_size for method in plan.batches}:
        make_pack(folder, size, folder / f"pack{size}")
    return folder


def train_fold(
    plan: Plan, method: str, data: Path, out: Path, *, dry: bool = False, stop_at: int = 0
) -> Trained:
    """Train the first fold for an epoch of all layers; `dry`: by `--dry_run`, with its head phase.

    It stops after update `stop_at`, and resumes where an earlier call has stopped in `out`.
    """
    config = plan.config(method)
    batch, size = config.loader.batch_size, config.loader.img_size
    files = {"train_csv": (data / "train.csv",), "train_dir": (data / f"pack{size}",)}
    optim = {"epochs": 1, "warmup_epochs": 0.0}
    if hasattr(config.optim, "warmup_head_epochs"):
        optim["warmup_head_epochs"] = int(dry)
    config = replace(
        config,
        run=replace(config.run, out_dir=out, dry_run=dry),
        data=replace(config.data, **files),
        split=replace(config.split, run_folds=(1,)),
        loader=replace(config.loader, epoch_size=plan.epoch * batch * plan.ranks),
        optim=replace(config.optim, **optim),
    )
    plan.reset_memory()
    start = replace(prepare_run(method, config), fabric=plan.fabric())
    run = open_folder(start, build(method), transforms(method, config))
    (fold,) = run.folds()
    timed = TimedFold.of(fold, plan, stop_at)
    model = build(method)(config.model, len(run.class_names), None, img_size=size)
    trainer = FoldTrainer(run, timed, model, run.build_loss(fold), phases(run.config))
    with suppress(SystemExit):
        trainer.fit()
    run.folder.release()
    average = trainer.average.module if trainer.average else model
    return Trained(
        model=model,
        weights={name: value.cpu() for name, value in average.state_dict().items()},
        speed=timed.count * batch / max(timed.seconds, 1e-9),
        waiting=100 * timed.waited / max(timed.seconds, 1e-9),
        gigabytes=plan.peak_gigabytes(),
    )


def measure_pack(plan: Plan, method: str, data: Path, out: Path, known: Known) -> Iterator[Figure]:
    """Waiting for data, speed against batches in memory, and peak memory against --dry_run's."""
    dry = train_fold(plan, method, data, out, dry=True).gigabytes
    done = train_fold(plan, method, data, out)
    known.weights[method] = done.weights
    waits = f"{method}: waiting for data from a pack"
    yield Figure(waits, "%", "limit", done.waiting, LIMIT, ceiling=1)
    what = f"{method}: training from a pack"
    yield Figure(what, "images/s", "in memory", done.speed, known.speed(method))
    yield Figure(f"{method}: peak memory", "GB", "--dry_run", done.gigabytes, dry, ceiling=1.1)


def measure_resume(
    plan: Plan, method: str, data: Path, out: Path, known: Known
) -> Iterator[Figure]:
    """Largest difference of a weight after a stop and a resume, against that of two equal runs.

    0 is equal bits. A GPU may differ by itself: some of its sums have no fixed order.
    """
    straight = known.weights.get(method) or train_fold(plan, method, data, out / "one").weights
    train_fold(plan, method, data, out / "stopped", stop_at=plan.epoch // 2)
    found = largest_difference(train_fold(plan, method, data, out / "stopped").weights, straight)
    again = 0.0
    if found:
        again = largest_difference(train_fold(plan, method, data, out / "two").weights, straight)
    yield Figure(f"{method}: resume, largest difference", "", "two equal runs", found, again)


def largest_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Largest absolute difference of a floating-point tensor."""
    return max(
        float((value - theirs[name]).abs().max())
        for name, value in ours.items()
        if value.is_floating_point() and value.numel()
    )
