"""A training run from its settings to its report: what the recipes of all methods share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from core.config.values import flat
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData, fold_data
from core.data.splits.prepare import Prepared, prepare
from core.losses import build_loss
from core.models.backbone import check_network, find_weights, model_settings
from core.models.init_from import Initial, find_initial
from core.runs.folder import RunFolder, open_run
from core.runtime.fabric import make_fabric, seed_stream, versions
from core.training.dry_run import for_dry_run
from core.training.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Settings, devices and data of a run, before anything is written."""

    method: str
    config: Any
    fabric: Fabric
    prepared: Prepared
    measured: Measurement | None = None
    """Where a dry run notes its times."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, in the order of the model's outputs."""
        return self.prepared.table.class_names

    def say(self, text: str) -> None:
        """Print on the first rank."""
        if self.fabric.is_global_zero:
            print(text)


@dataclass(frozen=True, kw_only=True)
class Run(Preparation):
    """A run whose folder is open."""

    data: list[FoldData]
    folder: RunFolder
    weights: Path | None = None
    """File of pretrained weights for the backbone, for `build_model`."""
    initial: Initial | None = None

    def folds(self) -> Iterator[FoldData]:
        """The folds to train; each seeds the random numbers of its model."""
        for fold in self.data:
            seed_stream(self.config.split.seed, fold.fold)
            yield fold

    def load_initial(self, model: nn.Module) -> None:
        """Copy the weights of --init_from, where given, into `model`."""
        if self.initial is not None:
            self.initial.give(model)

    def build_loss(self, fold: FoldData) -> nn.Module:
        """The loss of the settings, with the class counts of the fold's training part."""
        return _build_loss(self.config, fold)

    def checkpoint_facts(self) -> dict[str, Any]:
        """What each checkpoint says of its run; "model" rebuilds the model."""
        return {
            "method": self.method,
            "model": model_settings(self.config.model),
            "class_names": list(self.class_names),
            "img_size": self.config.loader.img_size,
            "folds": self.prepared.folds,
            "settings": flat(self.config, whole_paths=not self.config.data.anonymous),
            "versions": versions(),
        }


def prepare_run(method: str, config: Any) -> Preparation:
    """Start Fabric, read the table and divide it into folds. Raises UserError for wrong data."""
    fabric = make_fabric(amp=config.loop.amp)
    say = print if fabric.is_global_zero else lambda _: None
    say(f"Preset {config.preset} (--preset) on {fabric.world_size} x {fabric.device.type}.")
    prepared = prepare(config.data, config.split, say, config.loader.source_weights, config.run)
    measured = None
    if config.run.dry_run:
        config, prepared, measured = for_dry_run(config, prepared, fabric, say)
    return Preparation(
        method=method, config=config, fabric=fabric, prepared=prepared, measured=measured
    )


def start_run(
    method: str,
    config: Any,
    build_model: Callable[..., nn.Module],
    transforms: list[Any],
) -> Run:
    """`prepare_run`, then `open_folder`: all that the recipe of a method needs before its folds."""
    return open_folder(prepare_run(method, config), build_model, transforms)


def open_folder(
    start: Preparation, build_model: Callable[..., nn.Module] | None, transforms: list[Any]
) -> Run:
    """Check the network, the folds and the losses, then open the run folder.

    `build_model(config.model, classes, weights)` makes a model to try; None: the method brings its
    own. `transforms` augment the training images. Raises UserError, before anything is written, for
    whatever is wrong.
    """
    config, fabric = start.config, start.fabric
    initial = weights = None
    if build_model is not None:
        initial = find_initial(start.method, config, start.class_names)
        weights, sentence = find_weights(config.model, optional=config.preset == "small")
        trial = build_model(config.model, len(start.class_names), weights)
        start.say(initial.give(trial) if initial else sentence)
        check_network(trial, config.model.model, config.loader.img_size)
    augment = Augmentation(transforms, config.split.seed)
    data = fold_data(fabric, start.prepared, config.loader, config.optim.accumulate, augment)
    for fold in data:
        _build_loss(config, fold)
    folder = open_run(fabric, config.run, flat(config), start.prepared)
    return Run(**vars(start), data=data, folder=folder, weights=weights, initial=initial)


def _build_loss(config: Any, fold: FoldData) -> nn.Module:
    options = config.loss.build_options(config.optim.all_epochs)
    return build_loss(config.loss.loss, *fold.training_counts(), **options)
