"""Fit couplings alone to the logits of a frozen model: sparse logistic regression."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.data.loading.dataset import evaluation_loader
from core.data.loading.fold_data import FoldData
from core.errors import UserError
from core.models.backbone import Classifier, restore_config
from core.models.init_from import InitialWeights, find_initial_weights
from core.models.load import load_model
from core.models.predict import View, collect, mean_probability, validation_views
from core.models.starting_weights import checkpoint_origin
from core.runtime.log import logger
from core.training.fold_record import FoldRecord, TrainedEpoch, score_epoch
from core.training.l1_penalty import shrink
from core.training.optimizer import Phase, build_optimizer, rate_factor, set_rates
from core.training.run import Preparation, Run, open_folder, prepare_run
from methods.label_coupling.config import Config, ModelConfig
from methods.label_coupling.model import CoupledHead, LabelCoupling, build_model, check_labels
from methods.label_coupling.predict import find_test_images, finish_and_predict

UPDATES = 1000


def train_couplings_only(config: Config, checkpoint: Path) -> None:
    """Fit couplings for each fold to the logits of `checkpoint`, then predict the test images.

    Raises UserError if the checkpoint is invalid, of another method or has other labels, and for
    invalid data or test images.
    """
    config = _copy_network(checkpoint, config)
    start = prepare_run("label_coupling", config, checkpoint_origin("--couplings_only", checkpoint))
    check_labels(start.config.model, start.class_names)
    test = find_test_images(start)
    model, initial = _frozen_model(checkpoint, start)
    run = replace(open_folder(start, None, []), initial=initial)
    logits: list[Tensor] = []
    for fold in run.folds():
        record = FoldRecord(run, fold, model)
        if record.begin({"only": 1}):
            logits = logits or _logits_of_all(run, model, f"logits of {checkpoint.name}")
            _fit_fold(run, fold, record, model, logits)
    finish_and_predict(run, test)


def _copy_network(checkpoint: Path, config: Config) -> Config:
    """Copy network and image size of a checkpoint of label_coupling into `config`."""
    info = load_model(checkpoint)[1]
    if info.method != "label_coupling":
        raise UserError(
            f"--couplings_only {checkpoint} is a checkpoint of {info.method}: give one of "
            "label_coupling (best with --no-refiner)"
        )
    base = restore_config(ModelConfig, info.facts["model"])
    model = replace(
        config.model, model=base.model, drop_rate=base.drop_rate, patch_size=base.patch_size
    )
    loader = replace(config.loader, img_size=info.image_size)
    return replace(config, model=model, loader=loader)


def _frozen_model(
    checkpoint: Path, start: Preparation
) -> tuple[Classifier[CoupledHead], InitialWeights]:
    """Model of the checkpoint with couplings of 0. Raises UserError if its labels differ."""
    names = start.class_names
    initial = find_initial_weights(
        "label_coupling", start.config, names, path=checkpoint, flag="--couplings_only"
    )
    assert initial is not None
    if differing := sorted(set(initial.info.class_names) ^ set(names)):
        raise UserError(
            f"--couplings_only {checkpoint} and --labels have different labels: "
            f"{', '.join(differing)} in one of them only"
        )
    model = build_model(start.config.model, len(names), img_size=start.img_size)
    logger.info(f"Couplings alone, for frozen logits. {initial.copy_into(model)}")
    assert model.head.coupling is not None
    nn.init.zeros_(model.head.coupling.A)
    return model.eval(), initial


def _logits_of_all(run: Run, model: nn.Module, title: str) -> list[Tensor]:
    """Logits (N, C) of all images of the table, one tensor for each augmented copy."""
    fabric, table = run.fabric, run.prepared.table
    rows = np.arange(len(table))
    images = evaluation_loader(fabric, table, rows, run.config.loader)
    images.digests = np.zeros(len(table), np.int64)
    model.to(fabric.device)

    def of(view: View) -> Callable[[Tensor], Tensor]:
        return lambda batch: model(view(batch))

    with images:
        found = [
            collect(fabric, of(view), images, rows, title=title)
            for view in validation_views(run.config.loop.tta)
        ]
    for fold in run.data:
        fold.digests[:] = images.digests
    return [torch.from_numpy(logits) for logits in found]


def _fit_fold(
    run: Run, fold: FoldData, record: FoldRecord, model: Classifier[CoupledHead], logits: list
) -> None:
    """Fit couplings to one fold's training part, score its validation part, save the model."""
    optim, began = run.config.optim, time.monotonic()
    loss = run.build_loss(fold)
    if set_epoch := getattr(loss, "set_epoch", None):
        set_epoch(optim.epochs)
    coupling = LabelCoupling(len(run.class_names), run.config.model.coupling_alpha)
    rows = torch.from_numpy(fold.train_rows)
    targets = torch.from_numpy(fold.table.targets[fold.train_rows])
    train_loss = fit_couplings(
        coupling, logits[0][rows], targets, loss, l1=optim.coupling_l1, lr=optim.coupling_lr
    )
    trained = time.monotonic()
    held_out = [view[torch.from_numpy(fold.val_rows)] for view in logits]
    without = score_epoch(run.fabric, fold, mean_probability(held_out).numpy())
    classes, zeros = len(coupling.A), (coupling.A == 0).sum().item()
    logger.info(
        f"{record.log.title}  without couplings mAP {without['mAP']:.3f}  mAUROC "
        f"{without['mAUROC']:.3f}; {zeros - classes} of {classes * (classes - 1)} couplings are "
        "exactly 0"
    )
    epoch = TrainedEpoch(
        phase="only",
        train_loss=train_loss,
        # the mean of a cosine from 1 to 0
        rates={"coupling_lr": optim.coupling_lr, "lr_factor": 0.5},
        images=len(rows),
        began=began,
        trained=trained,
    )
    model.head.coupling = coupling
    with torch.no_grad():
        refined = mean_probability(coupling(view) for view in held_out)
    record.end_epoch(epoch, [1], model, refined.numpy())
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
    """Fit A to `logits` and `targets` (N, C) in full batches, from 0. Returns the final loss.

    l1: strength of the penalty on |A|; lr: peak learning rate, with a cosine to 0 over UPDATES.
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
