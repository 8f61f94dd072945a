"""The fit loop: phases, accumulation, clipping, finite check, evaluation, best weights, resume."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import nn

from core.config.training import LoopConfig, OptimConfig
from core.data.loading.dataset import Batch
from core.data.loading.fold_data import FoldData, describe_sampling
from core.errors import UserError
from core.models.predict import as_it_is, mirror, predict
from core.runs.folder import RunFolder
from core.runs.log import FoldLog, cut_back
from core.runtime.fabric import seed_stream
from core.runtime.ranks import check_equal
from core.training.best_checkpoint import save_best, score_epoch, time_epoch
from core.training.ema import MovingAverage
from core.training.grad_scaler import check_scale, scaler_of, scales, told_skipped
from core.training.head_phase import HeadPhase
from core.training.l1_penalty import shrink_after
from core.training.measurement import Measurement
from core.training.optimizer import (
    Phase,
    build_optimizer,
    make_step,
    rate_factor,
    set_rates,
    shares_of,
)
from core.training.resume import State
from core.training.step_monitor import Guard, NotFiniteError, diverged


@dataclass
class Fit:
    """Trains one fold and keeps its best weights, its predictions and its state.

    `model` has parts `backbone` and `head` with forward(images) = head(backbone(images)); `facts`
    go into the checkpoint. A fold that was stopped is taken up at its next update, and one that is
    finished is left alone. Raises UserError for an unreadable image and for numbers that are not
    finite; the last state then remains.
    """

    fabric: Fabric
    model: nn.Module
    loss: nn.Module
    phases: list[Phase]
    data: FoldData
    optim: OptimConfig
    loop: LoopConfig
    seed: int
    folder: RunFolder
    facts: dict[str, Any]
    measured: Measurement | None = None
    """Where a dry run notes its times."""

    def run(self) -> None:
        """Train to the end, or to the stop that a signal asks for (then SystemExit)."""
        self.files = self.folder.files(self.data.fold)
        self.log = FoldLog(
            self.folder.metrics,
            self.folder.timing,
            title=f"fold {self.data.fold}/{self.facts['folds']}",
            speaks=self.fabric.is_global_zero,
            tensorboard=self.files.tensorboard if self.loop.tensorboard else None,
        )
        # kernels for this layout are the faster ones on GPUs and on CPUs
        self.model.to(memory_format=torch.channels_last).to(self.fabric.device)
        self.loss.to(self.fabric.device)
        average = MovingAverage(self.model, self.loop.ema_decay) if self.loop.ema else None
        identity = f"{self.folder.identity} fold {self.data.fold}"
        scaler = scaler_of(self.fabric)
        self.state = State(self.model, average, self.fabric.device, identity, scaler)
        if self.files.state.exists():
            self.state.load(self.files.state, first=self.fabric.is_global_zero)
        progress = self.state.progress
        check_equal(
            self.fabric,
            {str(self.files.state): str(progress)},
            "--out_dir must be one folder that all machines share",
        )
        if progress.finished:
            self.log.say(f"{self.log.title}  finished before (best epoch {progress.best_epoch})")
            return
        self.log.say(progress.recount(self.data.images_per_update))
        self.log.say(describe_sampling(self.data))
        if self.fabric.is_global_zero:
            cut_back(self.log.metrics, self.data.fold, progress.epoch)
            cut_back(self.log.timing, self.data.fold, progress.epoch)
        self.validation = self.data.validation()
        if self.measured:
            self.validation = self.measured.watch(self.validation)
        self.guard = Guard(
            self.fabric,
            remember=self.loop.log_every * self.optim.accumulate,
            save_minutes=self.loop.save_minutes,
        )
        self.epochs = sum(phase.epochs for phase in self.phases)
        per_epoch = self.data.updates_per_epoch * self.data.images_per_update
        self.log.start(self.epochs * per_epoch, self._images_done())
        try:
            with self.guard.catching_signals():
                self._run_phases()
        except NotFiniteError as error:
            raise self._named(error) from error
        finally:
            self.log.close()

    def _run_phases(self) -> None:
        first = 0
        for phase in self.phases:
            last = first + phase.epochs
            if self.state.progress.epoch < last and not self.state.progress.finished:
                self._run_phase(phase, first, last)
            first = last

    def _run_phase(self, phase: Phase, first: int, last: int) -> None:
        """Epochs [first, last): the trained parts are wrapped anew, as DDP needs at each change."""
        progress, fabric = self.state.progress, self.fabric
        frozen = self._freeze(phase, range(first, last)) if phase.head_only else None
        raw = self.model.get_submodule("head" if frozen else "")
        if self.loop.compile:
            raw.compile()
        module = fabric.setup_module(raw)
        plain = build_optimizer(self.model, phase, fused=not scales(fabric))
        plain.register_step_post_hook(shrink_after)
        self.state.load_optimizer(phase.name, plain)
        optimizer = fabric.setup_optimizers(plain)
        assert isinstance(optimizer, _FabricOptimizer)
        where = progress.epoch, progress.update
        batches = frozen.batches(*where) if frozen else self.data.training(where[0], last, where[1])
        steps = phase.epochs * self.data.updates_per_epoch
        warmup = round(phase.warmup_epochs * self.data.updates_per_epoch)
        while progress.epoch < last and not progress.finished:
            if set_epoch := getattr(self.loss, "set_epoch", None):
                set_epoch(progress.epoch + 1)
            self.model.train()
            if frozen:
                self.model.get_submodule("backbone").eval()
            began, seen = time.monotonic(), self._images_done()
            if self.measured:
                self.measured.start()
            while progress.update < self.data.updates_per_epoch:
                step = (progress.epoch - first) * self.data.updates_per_epoch + progress.update
                set_rates(plain, rate_factor(step, steps, warmup))
                self._update(module, optimizer, batches)
                if progress.total_updates % self.loop.log_every == 0 or self.guard.stops_now:
                    self._look(phase, optimizer)
                if self.measured:
                    self.measured.lap()
            # of all its updates, however many were left to make after a resume
            updates = self.data.updates_per_epoch
            done = (progress.epoch - first) * updates
            factors = [rate_factor(done + n, steps, warmup) for n in range(updates)]
            rates = phase.peak_rates() | {"lr_factor": sum(factors) / updates}
            self._finish_epoch(phase, optimizer, frozen, rates, began, seen)

    def _update(
        self, module: _FabricModule, optimizer: _FabricOptimizer, batches: Iterator[Batch]
    ) -> None:
        """One optimiser update from `accumulate` batches, without waiting for the device."""
        progress, fabric = self.state.progress, self.fabric
        number = progress.total_updates
        parts = [next(batches) for _ in range(self.optim.accumulate)]
        known = torch.stack([(~torch.isnan(part.targets)).sum() for part in parts])
        shares = shares_of(fabric, known.to(fabric.device, non_blocking=True))
        worst = torch.zeros((), device=fabric.device)
        for place, (batch, share) in enumerate(zip(parts, shares, strict=True), start=1):
            # after the batches are fetched: a loader draws from the same stream when it starts
            seed_stream(self.seed, self.data.fold, number, place, fabric.global_rank)
            self.guard.remember(number, batch.rows)
            images = batch.images.to(fabric.device, non_blocking=True)
            targets = batch.targets.to(fabric.device, non_blocking=True)
            with fabric.no_backward_sync(module, enabled=place < len(parts)):
                loss = self.loss(module(images), targets)
                fabric.backward(loss * share)
            worst = worst + loss.detach()
            count = (~torch.isnan(targets)).sum()
            self.state.loss_sums[:2] += torch.stack([loss.detach() * count, count])
        norm = fabric.clip_gradients(
            module, optimizer, max_norm=self.optim.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None
        if scales(fabric):
            # an overflow of scaled gradients is no fault: the scaler skips it and scales less
            if fabric.is_global_zero:
                self.state.loss_sums[2] += ~torch.isfinite(norm)
            norm = torch.zeros_like(norm)
        make_step(fabric, optimizer, skip=self.guard.mark(number, worst, norm))
        if self.state.average is not None:
            self.state.average.update(number)
        progress.update += 1
        progress.total_updates += 1
        self.log.advance(self.data.images_per_update)

    def _images_done(self) -> int:
        progress = self.state.progress
        updates = progress.epoch * self.data.updates_per_epoch + progress.update
        return updates * self.data.images_per_update

    def _look(self, phase: Phase, optimizer: _FabricOptimizer) -> None:
        """Wait for the device, show the loss, save when it is time, stop when asked to."""
        stop, save = self.guard.decide()
        self.log.loss(*self._gather_sums())
        if save or stop:
            self._check_weights()
            self._save_state(phase, optimizer)
        self._stop_if_asked(stop)

    def _stop_if_asked(self, code: int) -> None:
        """End the program with `code` where it is not 0; the state must be saved."""
        if code:
            progress = self.state.progress
            self.log.close()
            self.log.say(
                f"{self.log.title}  stopped after {progress.epoch} epochs and {progress.update} "
                "updates; the same command goes on from here"
            )
            raise SystemExit(code)

    def _save_state(self, phase: Phase, optimizer: _FabricOptimizer) -> None:
        if self.fabric.is_global_zero:
            self.folder.check_place()
            self.state.save(self.files.state, phase.name, optimizer.optimizer)
        self.guard.saved()
        self.fabric.barrier()

    def _finish_epoch(
        self,
        phase: Phase,
        optimizer: _FabricOptimizer,
        frozen: HeadPhase | None,
        rates: dict[str, float],
        began: float,
        seen: int,
    ) -> None:
        """Evaluate, keep the weights if they are the best, and record the epoch with its rates."""
        if self.guard.decide()[0]:
            # a stop does not wait for an evaluation
            self._look(phase, optimizer)
        # before anything of the epoch is written
        self._check_weights()
        progress = self.state.progress
        images, trained = self._images_done() - seen, time.monotonic()
        train_loss, skipped = self._gather_sums()
        self.state.loss_sums.zero_()
        evaluated = self.state.average.module if self.state.average else self.model.eval()
        probabilities = self._predict(evaluated, frozen)
        if self.measured:
            self.measured.end(phase.name, self.data)
        scores = score_epoch(self.fabric, self.data, probabilities)
        best = progress.end_epoch(scores[self.loop.monitor], self.epochs, self.loop.patience)
        if self.fabric.is_global_zero:
            self.folder.check_place()
            if best:
                facts = self.facts | {"epoch": progress.epoch}
                save_best(self.files, self.data, evaluated, probabilities, scores, facts)
            self._show(probabilities)
            row = {"fold": self.data.fold, "epoch": progress.epoch}
            learned = {"phase": phase.name, "train_loss": train_loss} | scores
            spent = time_epoch(self.fabric, images, began, trained) | {"skipped": skipped}
            self.log.epoch(
                row | learned | {"best": int(best)} | rates,
                row | spent,
                of=self.epochs,
                best=best,
            )
            self.log.say(told_skipped(skipped, self.data.updates_per_epoch))
        self.log.say(self.data.told_constant())
        self._save_state(phase, optimizer)
        self._stop_if_asked(self.guard.decide()[0])

    def _show(self, probabilities: np.ndarray) -> None:
        """Give the epoch's curves to TensorBoard, and at first what the model is trained on."""
        if self.log.board is None:
            return
        data, epoch = self.data, self.state.progress.epoch
        targets = data.table.targets[data.val_rows]
        self.log.board.curves(epoch, data.table.class_names, targets, probabilities)
        if epoch == 1 and not self.facts["settings"]["anonymous"]:
            self.log.board.images("training images, augmented", data.examples(8))

    def _predict(self, evaluated: nn.Module, frozen: HeadPhase | None) -> np.ndarray:
        """Probabilities (V, C) of the validation images, all finite."""
        rows, views = self.data.val_rows, (as_it_is, mirror) if self.loop.tta else (as_it_is,)
        if frozen is None:
            probabilities = predict(self.fabric, evaluated, self.validation, rows, views=views)
        else:
            again = self.state.progress.epoch + 1 < frozen.epochs.stop
            probabilities = frozen.predict(
                evaluated, self.validation, rows, views=views, again=again
            )
        if not np.isfinite(probabilities).all():
            raise self._diverged("predictions")
        return probabilities

    def _freeze(self, phase: Phase, epochs: range) -> HeadPhase:
        return HeadPhase(
            fabric=self.fabric,
            model=self.model,
            data=self.data,
            epochs=epochs,
            views=phase.head_views,
            accumulate=self.optim.accumulate,
            seed=self.seed,
            folder=self.folder.path,
            say=self.log.say,
            pause=lambda: self._stop_if_asked(self.guard.decide()[0]),
        )

    def _gather_sums(self) -> tuple[float, int]:
        """Mean loss and skipped updates of this epoch, over all ranks."""
        loss, skipped = self.state.gather(self.fabric)
        check_scale(self.fabric, skipped, self._where())
        return loss, skipped

    def _check_weights(self) -> None:
        if not self.state.is_finite():
            raise self._diverged("weights")

    def _diverged(self, what: str) -> UserError:
        return diverged(what, self.state.progress.total_updates, self._where())

    def _named(self, error: NotFiniteError) -> UserError:
        names = [str(self.data.table.ids[row]) for row in error.rows]
        return error.as_user_error(names, self._where())

    def _where(self) -> str:
        return f"fold {self.data.fold}, epoch {self.state.progress.epoch + 1}"
