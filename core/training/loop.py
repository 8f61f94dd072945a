"""Training loop of one fold: phases, epochs, updates, resume states and stops."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData, describe_sampling
from core.errors import UserError, pluralize
from core.runtime.fabric import seed_stream
from core.runtime.log import logger
from core.training.batch_source import BatchSource, WholeModel
from core.training.ema import MovingAverage
from core.training.fold_record import FoldRecord, TrainedEpoch
from core.training.frozen_backbone import FrozenBackbone
from core.training.l1_penalty import shrink
from core.training.optimizer import (
    Phase,
    batch_weights,
    build_optimizer,
    get_scaler,
    make_step,
    rate_factor,
    set_rates,
)
from core.training.resume import Progress
from core.training.run import Run
from core.training.step_monitor import StepMonitor


@dataclass(frozen=True)
class PhaseTraining:
    """One phase in progress: the trained part of the model, its optimizer and its batches."""

    phase: Phase
    epochs: range
    updates_per_epoch: int
    source: BatchSource
    module: Any
    optimizer: Any
    """Fabric's wrappers of the trained part and of its AdamW."""

    def rate_factor(self, epoch: int, update: int) -> float:
        """Learning rate at an update of `epoch` (both from 0) as a fraction of its peak."""
        per_epoch = self.updates_per_epoch
        step = (epoch - self.epochs.start) * per_epoch + update
        warmup = round(self.phase.warmup_epochs * per_epoch)
        return rate_factor(step, len(self.epochs) * per_epoch, warmup)

    def mean_rates(self, epoch: int) -> dict[str, float]:
        """Peak rates and mean factor over the updates of `epoch`, by column of metrics.csv."""
        factors = [self.rate_factor(epoch, update) for update in range(self.updates_per_epoch)]
        return self.phase.peak_rates() | {"lr_factor": sum(factors) / self.updates_per_epoch}


class FoldTrainer:
    """Trainer of one fold: saves its best weights, predictions and resume state.

    `model` has the modules `backbone` and `head` with forward(images) = head(backbone(images)),
    from images (B, 1, H, W), uint8, to logits (B, C). `loss` maps logits and targets (B, C) to a
    scalar.
    """

    def __init__(
        self, run: Run, data: FoldData, model: nn.Module, loss: nn.Module, phases: list[Phase]
    ) -> None:
        self.run, self.data, self.phases = run, data, phases
        self.fabric, self.optim, self.loop = run.fabric, run.config.optim, run.config.loop
        # the faster memory layout on GPUs and CPUs
        self.model = model.to(memory_format=torch.channels_last).to(self.fabric.device)
        self.loss = loss.to(self.fabric.device)
        self.average = MovingAverage(model, self.loop.ema_decay) if self.loop.ema else None
        # an earlier training may have read these images
        data.digests[:] = 0
        self.record = FoldRecord(run, data, model, self.average)
        self.state, self.log = self.record.state, self.record.log
        self.epochs = sum(phase.epochs for phase in phases)
        first = sum(phase.epochs for phase in phases if not phase.sampler)
        self.stages = sorted({first, self.epochs} - {0})
        self.monitor = StepMonitor(
            self.fabric,
            data.table.ids,
            self._where,
            remember=self.loop.log_every * self.optim.accumulate,
            save_minutes=self.loop.save_minutes,
        )
        self._validation = data.validation()
        self.validation: Batches = self._validation
        if run.measured:
            self.validation = run.measured.watch(self.validation)

    @property
    def progress(self) -> Progress:
        """Epochs and updates done, and the best score, of the fold."""
        return self.state.progress

    def fit(self) -> None:
        """Train from the resume state to the end, or until a signal requests a stop.

        Raises SystemExit at a stop. Raises UserError for an unreadable image, numbers that are not
        finite (the last state remains), and a damaged or foreign resume state.
        """
        if not self.record.begin({phase.name: phase.epochs for phase in self.phases}):
            return
        if table := describe_sampling(self.data):
            logger.info(table)
        per_epoch = self.data.updates_per_epoch * self.data.images_per_update
        self.log.start(self.epochs * per_epoch, self._images_done())
        first = 0
        try:
            with self.monitor.catching_signals(), self._validation:
                for phase in self.phases:
                    epochs = range(first, first + phase.epochs)
                    if self.progress.epoch < epochs.stop and not self.progress.finished:
                        self._train_phase(phase, epochs)
                    first = epochs.stop
        finally:
            self.log.close()
            self.run.trackers.end(finished=self.progress.finished)

    def _train_phase(self, phase: Phase, epochs: range) -> None:
        """Train one phase; DDP needs a new wrapper whenever the trained part changes."""
        progress = self.progress
        begins = progress.epoch == epochs.start and not progress.update
        if phase.sampler and self.average is not None and begins:
            # the head is trained on the backbone that is evaluated
            self.model.load_state_dict(self.average.module.state_dict())
        source = self._batch_source(phase, epochs)
        if self.loop.compile:
            source.part.compile()
        module = self.fabric.setup_module(source.part)
        optimizer = build_optimizer(
            self.model,
            phase,
            fused=not get_scaler(self.fabric),
            decay_tokens=self.state.decay_tokens,
        )
        optimizer.register_step_post_hook(shrink)
        self.state.load_optimizer(phase.name, optimizer)
        wrapped = self.fabric.setup_optimizers(optimizer)
        if self.run.measured:
            averaged = [self.average.module] if self.average else []
            self.run.measured.add_state([self.model, *averaged], optimizer)
        updates = self.data.updates_per_epoch
        training = PhaseTraining(phase, epochs, updates, source, module, wrapped)
        batches = source.batches(progress.epoch, epochs.stop, progress.update)
        while progress.epoch < epochs.stop and not progress.finished:
            if set_epoch := getattr(self.loss, "set_epoch", None):
                set_epoch(progress.epoch + 1)
            source.set_train()
            began, seen = time.monotonic(), self._images_done()
            if self.run.measured:
                self.run.measured.start()
            self.train_epoch(training, batches)
            self._end_epoch(training, began, self._images_done() - seen)

    def _batch_source(self, phase: Phase, epochs: range) -> BatchSource:
        if not phase.head_only:
            return WholeModel(self.run, self.model, self.data, self.validation)
        data = self.data
        if phase.sampler:
            data = data.with_sampler(phase.sampler)
            logger.info(describe_sampling(data))
        return FrozenBackbone(
            run=self.run,
            model=self.model,
            data=data,
            validation=self.validation,
            epochs=epochs,
            passes=phase.head_views,
            pause=lambda: self._stop_if_asked(self.monitor.decide()[0]),
        )

    def train_epoch(self, training: PhaseTraining, batches: Iterator[Batch]) -> None:
        """Run the remaining updates of an epoch, each from `accumulate` batches.

        The host waits for the device only every `log_every` updates, in `_after_update`; with fp16
        also in each step, as the scaler reads there whether the gradients overflowed.
        """
        fabric, progress, module = self.fabric, self.progress, training.module
        seed, fold = self.run.config.split.seed, self.data.fold
        while progress.update < training.updates_per_epoch:
            update = progress.total_updates
            set_rates(training.optimizer, training.rate_factor(progress.epoch, progress.update))
            micro = [next(batches) for _ in range(self.optim.accumulate)]
            known = torch.stack([(~torch.isnan(batch.targets)).sum() for batch in micro])
            weights = batch_weights(fabric, known.to(fabric.device, non_blocking=True))
            loss_sum = torch.zeros((), device=fabric.device)
            for place, (batch, weight) in enumerate(zip(micro, weights, strict=True), start=1):
                # after the batches are fetched: a loader draws from the same stream when it starts
                seed_stream(seed, fold, update, place, fabric.global_rank)
                self.monitor.remember(update, batch.rows)
                images = batch.images.to(fabric.device, non_blocking=True)
                targets = batch.targets.to(fabric.device, non_blocking=True)
                with fabric.no_backward_sync(module, enabled=place < len(micro)):
                    loss = self.loss(module(images), targets)
                    fabric.backward(loss * weight)
                loss_sum = loss_sum + loss.detach()
                self.state.add_loss(loss.detach(), targets)
            norm = fabric.clip_gradients(
                module, training.optimizer, max_norm=self.optim.clip_norm, error_if_nonfinite=False
            )
            assert norm is not None
            if get_scaler(fabric):
                # an overflow of scaled gradients is expected: the scaler skips the update
                norm = self.state.count_skipped(norm, first=fabric.is_global_zero)
            make_step(fabric, training.optimizer, skip=self.monitor.mark(update, loss_sum, norm))
            if self.average is not None:
                self.average.update(update)
            progress.update += 1
            progress.total_updates += 1
            self.log.advance(self.data.images_per_update)
            self._after_update(training)

    def _after_update(self, training: PhaseTraining) -> None:
        if self.progress.total_updates % self.loop.log_every == 0 or self.monitor.stops_now:
            self._log_and_maybe_save(training)
        if self.run.measured:
            self.run.measured.lap()

    def _log_and_maybe_save(self, training: PhaseTraining) -> None:
        """Wait for the device and log the loss; save when due, stop when requested."""
        stop, save = self.monitor.decide()
        self.log.loss(*self._gather_sums())
        if save or stop:
            self._check_weights()
            self._save_state(training)
        self._stop_if_asked(stop)

    def _stop_if_asked(self, code: int) -> None:
        """Exit with `code` unless it is 0; the resume state must be saved before."""
        if code:
            self.log.close()
            logger.info(
                f"{self.log.title}  stopped after {self.progress.epoch} epochs and "
                f"{self.progress.update} updates; rerun the same command to resume "
                "[resumable]; the same command goes on from here"
            )
            raise SystemExit(code)

    def _save_state(self, training: PhaseTraining) -> None:
        self.record.save_state(training.phase.name, training.optimizer.optimizer)
        self.monitor.reset_clock()

    def _end_epoch(self, training: PhaseTraining, began: float, images: int) -> None:
        """Evaluate, save the weights if they are the best, log the epoch and save the state.

        `began`: start of the epoch by `time.monotonic`; `images`: trained on since then.
        """
        if self.monitor.decide()[0]:
            # stop without waiting for an evaluation
            self._log_and_maybe_save(training)
        # before any file of the epoch is written
        self._check_weights()
        trained = time.monotonic()
        train_loss, skipped = self._gather_sums()
        self.state.loss_sums.zero_()
        evaluated = self.average.module if self.average else self.model.eval()
        again = self.progress.epoch + 1 < training.epochs.stop
        probabilities = training.source.predict(evaluated, again=again)
        if not np.isfinite(probabilities).all():
            raise self._diverged("predictions")
        if self.run.measured:
            self.run.measured.end(training.phase.name, self.data)
        epoch = TrainedEpoch(
            phase=training.phase.name,
            train_loss=train_loss,
            rates=training.mean_rates(self.progress.epoch),
            images=images,
            began=began,
            trained=trained,
            skipped=skipped,
        )
        self.record.end_epoch(epoch, self.stages, evaluated, probabilities)
        if skipped >= self.data.updates_per_epoch:
            logger.info(
                "Warning: every update of this epoch overflowed fp16 and was skipped, so the "
                "weights did not change."
            )
        if warning := self.data.describe_blank_images():
            logger.info(warning)
        self._save_state(training)
        if self.run.measured:
            self.run.measured.wrote()
        self._stop_if_asked(self.monitor.decide()[0])

    def _images_done(self) -> int:
        updates = self.progress.epoch * self.data.updates_per_epoch + self.progress.update
        return updates * self.data.images_per_update

    def _gather_sums(self) -> tuple[float, int]:
        """Mean loss and skipped updates of this epoch. Raises UserError if all updates overflow."""
        loss, skipped = self.state.gather(self.fabric)
        scaler = get_scaler(self.fabric)
        if scaler is not None and scaler.get_scale() < 1:
            raise UserError(
                f"gradients overflow fp16 at any scale ({self._where()}, "
                f"{pluralize(skipped, 'update')} skipped): resume with `fabric run --precision "
                "32-true` (or bf16-mixed), or restart with lower learning rates in another "
                "--out_dir"
            )
        return loss, skipped

    def _check_weights(self) -> None:
        if not self.state.is_finite():
            raise self._diverged("weights")

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"the {what} were not finite after update {self.progress.total_updates} "
            f"({self._where()}) and were not saved: restart with lower learning rates in another "
            "--out_dir"
        )

    def _where(self) -> str:
        return f"fold {self.data.fold}, epoch {self.progress.epoch + 1}"
