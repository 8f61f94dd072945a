"""Training run: preparation, run folder and folds, shared by the recipes of all methods."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from core.config.earlier_run import EarlierRun, find_run
from core.config.values import flat
from core.data.loading.advice import advise
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData, fold_data
from core.data.splits.prepare import PreparedData, prepare
from core.errors import UserError
from core.losses import build_loss
from core.models.backbone import check_network, model_settings, refuse_size
from core.models.checkpoint import load_tensors
from core.models.data_digests import DataDigests
from core.models.init_from import InitialWeights, find_initial_weights
from core.models.network_size import SizeError
from core.models.starting_weights import Origin, checkpoint_origin, find_weights
from core.models.weights import find_public_weights
from core.runs.folder import RunFolder, may_be_random, open_run
from core.runs.pseudo_labels import check_pseudo_labels
from core.runs.tracked_files import tracking_id
from core.runtime.fabric import make_fabric, seed_stream, versions
from core.runtime.log import logger
from core.runtime.precision import (
    IMAGES,
    SwitchedAutocast,
    advise_amp,
    can_gain,
    choose_precision,
    log_gain,
    training_step,
)
from core.trackers.tracker import TrackedRun
from core.trackers.trackers import Trackers, check_trackers
from core.training.dry_run import reduce_to_dry_run
from core.training.measurement import Measurement
from core.training.optimizer import layer_scales

# settings of the starting weights
_WEIGHTS = ("pretrained", "weights_name", "weights_file", "init_from")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Settings, devices and data of a run, before anything is written."""

    method: str
    config: Any
    fabric: Fabric
    prepared: PreparedData
    origin: Origin | None = None
    """Origin of the starting weights; None if a resumed run has no record of it."""
    weights: Path | None = None
    """File of pretrained weights for the backbone, for `build_model`."""
    img_size: int | None = None
    """Image size for `build_model`; None (timm's default) in a resumed run of an older version."""
    needs_weights: bool = True
    """False where each fold to run resumes from its state."""
    measured: Measurement | None = None
    """Times of a dry run."""
    precision: str | None = None
    """Precision that a resumed run chose on a CPU, by --amp."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return self.prepared.table.class_names


@dataclass(frozen=True, kw_only=True)
class Run(Preparation):
    """A run with its folder open: settings, devices, data of each fold and initial weights."""

    data: list[FoldData]
    folder: RunFolder
    initial: InitialWeights | None = None
    trackers: Trackers = field(default_factory=Trackers)
    """On the first rank, those of --logger."""

    @cached_property
    def initial_digests(self) -> DataDigests | None:
        """Digests of the initial checkpoint; None if they are unknown."""
        if self.initial is not None:
            return self.initial.info.data_digests
        # resumed: only the recorded file has them
        with suppress(UserError):
            path = self.config.model.init_from
            if checkpoint_origin("--init_from", path) == self.origin:
                return DataDigests.read(*load_tensors(path), path)
        return None

    def folds(self) -> Iterator[FoldData]:
        """The folds to train; seeds the random numbers of each fold's model."""
        for fold in self.data:
            seed_stream(self.config.split.seed, fold.fold)
            yield fold

    def load_initial(self, model: nn.Module) -> None:
        """Copy the weights of --init_from, if given, into `model`.

        Raises UserError if the backbone does not fit.
        """
        if self.initial is not None:
            self.initial.copy_into(model)

    def build_loss(self, fold: FoldData) -> nn.Module:
        """Loss of the settings, with the class counts of the fold's training images.

        Raises UserError as `core.losses.build_loss` does.
        """
        return _build_loss(self.config, fold)

    def checkpoint_facts(self) -> dict[str, Any]:
        """Description of the run for each checkpoint; "model" rebuilds the model."""
        return {
            "method": self.method,
            "model": model_settings(self.config.model, sized=self.img_size is not None),
            "class_names": list(self.class_names),
            "img_size": self.config.loader.img_size,
            "folds": self.prepared.folds,
            "by_image": self.prepared.by_image,
            "settings": flat(self.config, whole_paths=not self.config.data.anonymous),
            "starting_weights": self.origin.record() if self.origin else None,
            "versions": versions(),
        }


def prepare_run(method: str, config: Any, origin: Origin | None = None) -> Preparation:
    """Start Fabric, find the starting weights, read the table and divide it into folds.

    `origin`: origin of a model that the method provides itself. Raises UserError for weights that
    cannot be fetched, before the data are read, and for invalid data.
    """
    fabric = make_fabric(amp=config.loop.amp)
    if fabric.is_global_zero:
        check_trackers(config.loop.trackers, config.run.out_dir)
    logger.info(f"Preset {config.preset} (--preset) on {fabric.world_size} x {fabric.device.type}.")
    before = _find_earlier(config)
    earlier = before if _resumes_all_folds(config, before) else None
    weights, needs_weights = None, earlier is None
    # older versions built every network at timm's default size
    sized = before is None or "patch_size" in before.settings
    if earlier is not None:
        origin = Origin.read(earlier.environment.get("starting_weights"))
    elif origin is None:
        weights, origin = find_weights(config.model)
        if origin.licence:
            logger.info(f"Licence of the weights {origin}: {origin.licence}{_terms(config)}.")
        if before is not None and may_be_random(before):
            logger.info(
                f"Warning: {config.run.out_dir} has no record of the starting weights of its "
                f"trained folds. The others start from {origin}: give --no-pretrained if the run "
                "began from random weights, as version 0.1 did offline."
            )
            origin = None
    if config.optim.trains_head_alone and origin is not None and origin.is_random:
        logger.info(
            "Warning: the backbone is frozen at random weights, so that the head trains on random "
            "features: give --pretrained, --weights_name, --weights_file or --init_from."
        )
    prepared = prepare(
        config.data, config.split, logger.info, config.loader.source_weights, config.run
    )
    # before a dry run leaves out images
    for sentence in check_pseudo_labels(
        prepared, config.data.train_csv, anonymous=config.data.anonymous
    ):
        logger.info(sentence)
    measured = None
    if config.run.dry_run:
        config, prepared, measured = reduce_to_dry_run(config, prepared, fabric, logger.info)
    return Preparation(
        method=method,
        config=config,
        fabric=fabric,
        prepared=prepared,
        origin=origin,
        weights=weights,
        img_size=config.loader.img_size if sized else None,
        needs_weights=needs_weights,
        measured=measured,
        precision=before.environment.get("precision") if before is not None else None,
    )


def _terms(config: Any) -> str:
    """Terms of --weights_name, after a semicolon."""
    name = config.model.weights_name
    return f"; {find_public_weights(name).terms}" if name else ""


def _find_earlier(config: Any) -> EarlierRun | None:
    """The run in --out_dir; None if it is not resumed."""
    fresh = config.run.overwrite or config.run.dry_run
    return None if fresh else find_run(config.run.out_dir)


def _resumes_all_folds(config: Any, earlier: EarlierRun | None) -> bool:
    """Whether every fold to run has a state of the `earlier` run and needs no starting weights."""
    if earlier is None:
        return False
    given = flat(config.model)
    if any(earlier.settings.get(name) != given[name] for name in _WEIGHTS):
        # `open_run` refuses other starting weights
        return False
    folder, split = RunFolder(config.run.out_dir, config.model.model), config.split
    every = (1,) if config.data.val_csv else range(1, split.folds + 1)
    states = [folder.files(fold).state for fold in split.run_folds or every]
    return all(state.exists() for state in states)


def start_run(
    method: str,
    config: Any,
    build_model: Callable[..., nn.Module],
    transforms: list[Any],
) -> Run:
    """Prepare a run and open its folder: `prepare_run`, then `open_folder`.

    `build_model(config.model, classes, weights)` builds a model; `transforms` augment the training
    images. Raises UserError, before anything is written, for invalid settings, data or weights and
    for a folder of another run.
    """
    return open_folder(prepare_run(method, config), build_model, transforms)


def open_folder(
    start: Preparation, build_model: Callable[..., nn.Module] | None, transforms: list[Any]
) -> Run:
    """Check the network, the folds and the losses, then open the run folder and give advice.

    `build_model(config.model, classes, weights, img_size=)` builds a model for the check; None: the
    method provides its own. `transforms` augment the training images. Raises UserError before
    anything is written.
    """
    config, fabric = start.config, start.fabric
    initial = precision = None
    if build_model is not None:
        size = start.img_size
        try:
            trial = build_model(config.model, len(start.class_names), start.weights, img_size=size)
        except SizeError as error:
            raise refuse_size(config.model, config.loader.img_size, str(error)) from error
        if loaded := getattr(trial.get_submodule("backbone.network"), "weights_summary", ""):
            logger.info(f"Starting weights: {start.origin}: {loaded}.")
        if start.needs_weights:
            initial = find_initial_weights(start.method, config, start.class_names)
        if initial is not None:
            logger.info(initial.copy_into(trial))
        if config.optim.layer_decay < 1:
            layer_scales(trial.get_submodule("backbone.network"), config.optim.layer_decay)
        check_network(trial, config.model.model, config.loader.img_size)
        precision = _choose_precision(start, trial)
    augment = Augmentation(transforms, config.split.seed)
    data = fold_data(fabric, start.prepared, config.loader, config.optim.accumulate, augment)
    for fold in data:
        _build_loss(config, fold)
    record = start.origin.record() if start.origin else None
    origins = {"starting_weights": record} | ({"precision": precision} if precision else {})
    folder = open_run(fabric, config.run, flat(config), start.prepared, origins)
    if build_model is not None and start.needs_weights:
        targets = start.prepared.table.binary_targets[data[0].train_rows]
        for line in advise(targets, start.class_names, config.loader, config.loss):
            logger.info(line)
    trackers = Trackers()
    if fabric.is_global_zero:
        anonymous = config.data.anonymous
        tracked = TrackedRun(
            folder=folder.path,
            id=tracking_id(folder.starts),
            settings=flat(config, whole_paths=not anonymous),
            anonymous=anonymous,
        )
        trackers = Trackers(config.loop.trackers, tracked)
    return Run(**vars(start), data=data, folder=folder, initial=initial, trackers=trackers)


def _choose_precision(start: Preparation, model: nn.Module) -> str | None:
    """Precision of training steps of `model` on a CPU with --amp; changes its weights.

    A dry run without --amp prints what it would gain.
    """
    config, fabric, measured = start.config, start.fabric, start.measured
    count, size = min(IMAGES, config.loader.batch_size), config.loader.img_size
    frozen = config.optim.trains_head_alone
    if isinstance(autocast := fabric.strategy.precision, SwitchedAutocast):
        step = training_step(model, autocast, count, size, frozen)
        return choose_precision(fabric, step, count, start.precision)
    if measured is None:
        advise_amp(fabric, config.loop.amp, " --dry_run measures it for this network.")
    elif can_gain(fabric, config.loop.amp):
        autocast, began = SwitchedAutocast(), monotonic()
        log_gain(autocast, training_step(model, autocast, count, size, frozen), count)
        # not a part of the run
        measured.began += monotonic() - began
    return None


def _build_loss(config: Any, fold: FoldData) -> nn.Module:
    options = config.loss.build_options(config.optim.all_epochs)
    return build_loss(config.loss.loss, *fold.training_counts(), **options)
