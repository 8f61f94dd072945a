"""Couplings alone, fitted to the logits of a frozen model: a sparse logistic regression."""

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from core.data.loading.dataset import evaluation_loader
from core.data.loading.fold_data import FoldData
from core.data.tables.label_table import LabelTable
from core.errors import UserError, some
from core.models.backbone import Classifier, restore_config
from core.models.checkpoint import not_finite
from core.models.load import load_model
from core.models.predict import View, collect
from core.training.batch_source import validation_views
from core.training.fold_record import FoldRecord, TrainedEpoch, score_epoch
from core.training.l1_penalty import shrink
from core.training.optimizer import Phase, build_optimizer, rate_factor, set_rates
from core.training.run import Run, open_folder, prepare_run
from methods.label_coupling.config import Config, ModelConfig
from methods.label_coupling.model import CoupledHead, LabelCoupling, check_labels
from methods.label_coupling.predict import find_test_images, finish_and_predict

UPDATES = 1000


class FrozenBase:
    """A checkpoint whose logits, without couplings, are to be refined.

    Raises UserError where it is no whole checkpoint of label_coupling, or is not finite.
    """

    def __init__(self, checkpoint: Path) -> None:
        model, info = load_model(checkpoint)
        if not isinstance(model, Classifier) or not isinstance(model.head, CoupledHead):
            raise UserError(
                f"--couplings_only {checkpoint} is a checkpoint of {info.method}: couplings refine "
                "the logits of one of label_coupling (with --no-refiner, best)"
            )
        if spoiled := not_finite(model.state_dict()):
            raise UserError(
                f"--couplings_only {checkpoint} holds weights that are not finite "
                f"({some(spoiled)}): take another"
            )
        model.head.coupling = None
        self.model, self.info, self.checkpoint = model, info, checkpoint
        self.views: list[Tensor] = []

    def lend(self, config: Config) -> Config:
        """`config` with the network and the image size of the checkpoint.

        Raises UserError where the checkpoint lies where the run would write.
        """
        if self.checkpoint.resolve().parent == config.run.out_dir.resolve():
            raise UserError(
                f"--couplings_only {self.checkpoint} lies in --out_dir, where the new checkpoints "
                "go: give another --out_dir"
            )
        base = restore_config(ModelConfig, self.info.facts["model"])
        model = replace(config.model, model=base.model, drop_rate=base.drop_rate)
        loader = replace(config.loader, img_size=self.info.image_size)
        return replace(config, model=model, loader=loader)

    def order_as(self, class_names: Sequence[str]) -> None:
        """Give the logits this order. Raises UserError where the labels are not the same."""
        own = self.info.class_names
        if differing := sorted(set(own) ^ set(class_names)):
            raise UserError(
                f"--couplings_only {self.checkpoint} and --labels do not name the same labels: "
                f"{', '.join(differing)} in one of them only"
            )
        order = [own.index(name) for name in class_names]
        classifier = self.model.head.classifier
        with torch.no_grad():
            classifier.weight.copy_(classifier.weight[order].clone())
            classifier.bias.copy_(classifier.bias[order].clone())

    def describe(self, train_csv: Sequence[Path]) -> str:
        """A sentence about it, and a warning where it was trained on one of these files."""
        text = f"Couplings alone, for the frozen logits of {self.checkpoint}."
        settings = self.info.facts.get("settings")
        known = settings.get("train_csv") if isinstance(settings, dict) else None
        # older checkpoints name one file, as a text
        names = known if isinstance(known, list) else [known]
        if shared := [str(path) for path in train_csv if str(path) in names]:
            text += (
                f"\nWarning: it was trained on images of {', '.join(shared)}: its logits of these "
                "are too sure, and what is measured on them here is too good."
            )
        return text

    def predict(self, fabric: Fabric, table: LabelTable, config: Config) -> None:
        """Keep the logits of every image of `table`, of each view; once."""
        if self.views:
            return
        model, rows = self.model.to(fabric.device), np.arange(len(table))
        images = evaluation_loader(fabric, table, rows, config.loader)
        title = f"logits of {self.checkpoint.name}"
        for view in validation_views(config.loop):
            logits = collect(fabric, _seen_by(model, view), images, rows, title=title)
            self.views.append(torch.from_numpy(logits))

    def probabilities(self, rows: np.ndarray, coupling: LabelCoupling | None) -> np.ndarray:
        """Those of `rows`, refined or not, averaged over the views; (len(rows), C)."""
        with torch.no_grad():
            logits = [view[torch.from_numpy(rows)] for view in self.views]
            refined = logits if coupling is None else [coupling(view) for view in logits]
            return torch.stack(refined).sigmoid().mean(dim=0).numpy()


def _seen_by(model: nn.Module, view: View) -> View:
    return lambda images: model(view(images))


def train_couplings_only(config: Config) -> None:
    """Fit couplings for each fold to the logits of --couplings_only, then predict test images."""
    assert config.optim.couplings_only is not None
    base = FrozenBase(config.optim.couplings_only)
    start = prepare_run("label_coupling", base.lend(config))
    check_labels(start.config.model, start.class_names)
    test = find_test_images(start)
    base.order_as(start.class_names)
    start.say(base.describe(config.data.train_csv))
    run = open_folder(start, None, [])
    for fold in run.folds():
        fit_fold(run, fold, base)
    finish_and_predict(run, test)


def fit_fold(run: Run, fold: FoldData, base: FrozenBase) -> None:
    """Fit couplings to one fold's training part, score its validation part, keep the model.

    A fold that is finished is left alone.
    """
    config, optim = run.config, run.config.optim
    record = FoldRecord(run, fold, base.model)
    if not record.begin():
        return
    base.predict(run.fabric, fold.table, config)
    began = time.monotonic()
    loss = run.build_loss(fold)
    if set_epoch := getattr(loss, "set_epoch", None):
        set_epoch(optim.epochs)
    coupling = LabelCoupling(len(run.class_names), config.model.coupling_alpha)
    rows = torch.from_numpy(fold.train_rows)
    targets = torch.from_numpy(fold.table.targets[fold.train_rows])
    train_loss = fit_couplings(
        coupling, base.views[0][rows], targets, loss, l1=optim.coupling_l1, lr=optim.coupling_lr
    )
    trained = time.monotonic()
    without = score_epoch(run.fabric, fold, base.probabilities(fold.val_rows, None))
    zeros = (coupling.A == 0).sum().item() - len(coupling.A)
    record.log.say(
        f"{record.log.title}  without couplings mAP {without['mAP']:.3f}  mAUROC "
        f"{without['mAUROC']:.3f}; {zeros} of {coupling.A.numel() - len(coupling.A)} couplings are "
        "exactly 0"
    )
    refined = copy.deepcopy(base.model)
    refined.head.coupling = coupling
    rates = {"coupling_lr": optim.coupling_lr}
    epoch = TrainedEpoch(
        phase="only",
        train_loss=train_loss,
        rates=rates,
        images=len(rows),
        began=began,
        trained=trained,
    )
    record.end_epoch(epoch, 1, refined, base.probabilities(fold.val_rows, coupling))
    record.save_state()


def fit_couplings(
    coupling: LabelCoupling,
    logits: Tensor,
    targets: Tensor,
    loss: nn.Module,
    *,
    l1: float,
    lr: float,
) -> float:
    """Fit A to all of `logits` and `targets` (N, C) at once, in `UPDATES` steps; the last loss.

    Without the noise of batches an entry that is not needed comes to rest at exactly 0.
    """
    phase = Phase("couplings", 1, {"coupling": lr}, l1=l1)
    optimizer = build_optimizer(nn.ModuleDict({"coupling": coupling}), phase, fused=False)
    value = torch.zeros(())
    for update in range(UPDATES):
        set_rates(optimizer, rate_factor(update, UPDATES, 0))
        value = loss(coupling(logits), targets)
        value.backward()
        optimizer.step()
        shrink(optimizer)
        optimizer.zero_grad()
    return value.item()
