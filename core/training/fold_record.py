"""Files of one fold: resume state, best checkpoint, validation predictions, log."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from core.data.loading.fold_data import FoldData
from core.errors import pluralize
from core.io.atomic import write_atomically
from core.metrics import evaluate
from core.models.checkpoint import save_tensors
from core.models.data_digests import DataDigests, DigestSet, Role, patient_digests
from core.runs.log import FoldLog, truncate_log
from core.runtime.log import logger
from core.runtime.ranks import check_equal
from core.training.ema import MovingAverage
from core.training.optimizer import get_scaler
from core.training.resume import ResumeState
from core.training.run import Run

# measures of an evaluation's summary in metrics.csv and the checkpoint
SCORES = ("mAP", "mAUROC", "mF1", "micro_AP", "ECE", "ECE_flat", "classes_scored")


@dataclass(frozen=True, kw_only=True)
class TrainedEpoch:
    """Results of an epoch after its last update, before evaluation."""

    phase: str
    train_loss: float
    rates: dict[str, float]
    """Learning rates by column of metrics.csv."""
    images: int
    """Images trained on since the command started."""
    began: float
    trained: float
    """Times of `time.monotonic`."""
    skipped: int = 0
    """Updates that overflowed fp16."""


class FoldRecord:
    """Files of one fold of a run. Every rank has one; the first rank writes."""

    def __init__(
        self, run: Run, data: FoldData, model: nn.Module, average: MovingAverage | None = None
    ) -> None:
        fabric, folder = run.fabric, run.folder
        self.run, self.data = run, data
        self.files = folder.files(data.fold)
        self.log = FoldLog(
            folder.metrics,
            folder.timing,
            title=f"fold {data.fold}/{run.prepared.folds}",
            is_main=fabric.is_global_zero,
            trackers=run.trackers,
        )
        identity = f"{folder.identity} fold {data.fold}"
        self.state = ResumeState(model, average, fabric.device, identity, get_scaler(fabric))
        self.state.image_digests = data.digests

    def begin(self, epochs: Mapping[str, int]) -> bool:
        """Load the resume state, if any; False if the fold is finished.

        `epochs` by phase name. Raises UserError for a damaged or foreign state, and if the ranks
        do not share the folder.
        """
        fabric, log = self.run.fabric, self.log
        if self.files.state.exists():
            self.state.load(self.files.state, first=fabric.is_global_zero)
        progress = self.state.progress
        remedy = "--out_dir must be one folder that all machines share"
        check_equal(fabric, {str(self.files.state): str(progress)}, remedy)
        if progress.finished:
            logger.info(f"{log.title}  finished before (best epoch {progress.best_epoch})")
            return False
        logger.info(f"{log.title}  {self._describe_start(epochs)}")
        if note := progress.recount(self.data.images_per_update):
            logger.info(note)
        for path in (log.metrics, log.timing) if fabric.is_global_zero else ():
            # these epochs are trained again
            truncate_log(path, self.data.fold, progress.epoch)
        self.run.trackers.begin(self.data.fold)
        return True

    def _describe_start(self, epochs: Mapping[str, int]) -> str:
        """ "1 head + 2 all epochs, from random weights (--no-pretrained)" """
        plan = " + ".join(f"{number} {phase}" for phase, number in epochs.items() if number)
        if not self.files.state.exists():
            return f"{plan} epochs" + (f", from {self.run.origin}" if self.run.origin else "")
        progress, total = self.state.progress, sum(epochs.values())
        done = f", {pluralize(progress.update, 'update')} of it done" if progress.update else ""
        return f"resuming at epoch {progress.epoch + 1} of {total} ({plan}){done}"

    def end_epoch(
        self,
        epoch: TrainedEpoch,
        stages: Sequence[int],
        module: nn.Module,
        probabilities: np.ndarray,
    ) -> None:
        """Score validation `probabilities` (V, C), save `module` if it is the best, log the epoch.

        `stages`: see `Progress.end_epoch`; the last is the maximum number of epochs of the fold.
        """
        run, progress, loop = self.run, self.state.progress, self.run.config.loop
        scores = score_epoch(run.fabric, self.data, probabilities)
        number = progress.epoch + 1
        best = progress.end_epoch(scores[loop.monitor], stages, loop.patience)
        self.data.gather_digests()
        if not run.fabric.is_global_zero:
            return
        run.folder.check_place()
        if best:
            self._save_best(module, probabilities, scores)
        self._track_curves(number, probabilities)
        row = {"fold": self.data.fold, "epoch": number}
        learned: dict[str, Any] = {"phase": epoch.phase, "train_loss": epoch.train_loss} | scores
        learned |= {"best": int(best)} | epoch.rates
        now = time.monotonic()
        timing = {
            "images_per_second": epoch.images / max(epoch.trained - epoch.began, 1e-9),
            "seconds": now - epoch.began,
            "evaluation_seconds": now - epoch.trained,
            "processes": run.fabric.world_size,
            "device": run.fabric.device.type,
            "skipped": epoch.skipped,
        }
        self.log.epoch(row | learned, row | timing, of=stages[-1], best=best)
        if progress.finished and len(stages) > 1:
            logger.info(f"{self.log.title}  {self._describe_stages(stages)}")

    def _track_curves(self, epoch: int, probabilities: np.ndarray) -> None:
        """Give the trackers the curves of an epoch, and in the first one training images."""
        data, trackers = self.data, self.run.trackers
        if not trackers:
            return
        validation = data.table.class_names, data.table.hard_targets[data.val_rows], probabilities
        trackers.each(lambda tracker: tracker.curves(epoch, *validation))
        if epoch == 1 and not self.run.config.data.anonymous:
            # side by side
            row = np.hstack([*data.examples(8)])
            trackers.each(lambda one: one.picture("training images, augmented", row, epoch))

    def _describe_stages(self, stages: Sequence[int]) -> str:
        """Best score before and after the head was trained again, and which weights are kept."""
        rows = pd.read_csv(self.log.metrics).query(f"fold == {self.data.fold}")
        monitor = self.run.config.loop.monitor
        before, after = (
            rows.loc[part, monitor].max()
            for part in (rows["epoch"] <= stages[0], rows["epoch"] > stages[0])
        )
        chosen = "re-trained" if self.state.progress.best_epoch > stages[0] else "first"
        return f"{monitor} {before:.4f}, re-trained {after:.4f}: the {chosen} weights are kept"

    def save_state(self, phase: str = "", optimizer: torch.optim.Optimizer | None = None) -> None:
        """Save the resume state; all ranks call it together."""
        self.data.gather_digests()
        if self.run.fabric.is_global_zero:
            self.run.folder.check_place()
            self.state.save(self.files.state, phase, optimizer)
        self.run.fabric.barrier()

    def _save_best(
        self, module: nn.Module, probabilities: np.ndarray, scores: dict[str, float]
    ) -> None:
        """Write predictions, then the checkpoint, which is thus never newer than they are."""
        table = self.data.table
        frame = pd.DataFrame(probabilities, columns=list(table.class_names))
        frame.insert(0, "ImageID", np.asarray(table.ids, dtype=object)[self.data.val_rows])
        write_atomically(
            self.files.predictions,
            lambda path: frame.to_csv(path, index=False, float_format="%.8g"),
        )
        positives, known = self.data.training_counts()
        # sums of soft labels, rounded
        whole = np.rint(positives).astype(int)
        facts: dict[str, Any] = self.run.checkpoint_facts() | {
            "epoch": self.state.progress.epoch,
            "fold": self.data.fold,
            # JSON has no NaN
            "metrics": {name: v if np.isfinite(v) else None for name, v in scores.items()},
            "training_positives": dict(zip(table.class_names, whole.tolist(), strict=True)),
            "training_known": dict(zip(table.class_names, known.tolist(), strict=True)),
        }
        tensors = module.state_dict()
        # a state of an earlier version has no digests
        if self.state.image_digests is not None:
            digests, described = fold_digests(self.run, self.data).to_tensors()
            tensors, facts = tensors | digests, facts | described
        save_tensors(self.files.weights, tensors, facts)


def fold_digests(run: Run, data: FoldData) -> DataDigests:
    """Digests of the images read so far in training and validation, and of the fold's patients.

    Patients are left out with --anonymous, and with several sources, which prefix their names.
    """
    parts, table = [], data.table
    with_patients = not run.config.data.anonymous
    named = with_patients and table.patients is not None and table.sources is None
    sizes = table.images.digest_sizes(run.config.loader.img_size)
    key = bytes.fromhex(run.prepared.fingerprint())[:16]
    of_roles: tuple[tuple[Role, np.ndarray], ...] = (
        ("training", data.train_rows),
        ("validation", data.val_rows),
    )
    for role, rows in of_roles:
        rows_read = rows[data.digests[rows] != 0]
        for size in np.unique(sizes[rows_read]).tolist():
            found = np.unique(data.digests[rows_read[sizes[rows_read] == size]])
            parts.append(DigestSet(role, found, size))
        if named and table.patients is not None:
            people = patient_digests(np.unique(table.patients[rows]).tolist(), key)
            parts.append(DigestSet(role, np.unique(people), key=key))
    digests = DataDigests(tuple(parts))
    if run.initial is None and run.config.model.init_from is None:
        return digests
    return digests.with_initial(run.initial_digests, patients=with_patients)


def score_epoch(fabric: Fabric, data: FoldData, probabilities: np.ndarray) -> dict[str, float]:
    """SCORES of validation `probabilities` (V, C), computed on the first rank and broadcast."""
    scores: dict[str, float] = {}
    if fabric.is_global_zero:
        targets = data.table.hard_targets[data.val_rows]
        evaluation = evaluate(targets, probabilities, data.table.class_names, resamples=0)
        scores = {name: float(evaluation.summary[name]) for name in SCORES}
    return fabric.broadcast(scores)
