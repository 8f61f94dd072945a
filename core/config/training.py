"""Groups of settings that the methods share; a method's Config is made of them.

Neither torch nor timm is imported here, so that `--help` answers at once. Attribute docstrings are
the flags' help; names are unique over all groups because the command line is flat.
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class SplitConfig:
    """How patients are divided into folds."""

    folds: int = 5
    """Number of patient-disjoint folds."""
    run_folds: tuple[int, ...] = ()
    """Folds to train now, counted from 1, e.g. --run_folds 1 2; all when not given."""
    seed: int = 42
    """Seed of folds, weights, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        _within("seed", self.seed, 0, 2**32 - 1)
        if self.folds < 2:
            raise UserError(f"--folds must be at least 2, not {self.folds}")
        wrong = [fold for fold in self.run_folds if not 1 <= fold <= self.folds]
        if wrong:
            raise UserError(f"--run_folds counts from 1 to --folds {self.folds}, not {wrong[0]}")
        if len(set(self.run_folds)) < len(self.run_folds):
            raise UserError("--run_folds names a fold twice")


@dataclass(kw_only=True, slots=True)
class LoaderConfig:
    """How images reach the model."""

    img_size: int = 512
    """Side of the square image, in pixels."""
    batch_size: int = 64
    """Images in a batch, per process."""
    sampler: Literal["uniform", "class_aware", "repeat_factor"] = "uniform"
    """Which images an epoch takes: each once (uniform), each class in its turn (class_aware, Shen
    2016), or images of rare classes repeated (repeat_factor, Gupta 2019)."""
    epoch_size: int | None = None
    """Images in an epoch; as many as there are unless given (repeat_factor: with the repeats)."""
    source_weights: tuple[float, ...] = ()
    """Shares of an epoch's draws, one for each --train_csv; by their number of images if none."""
    num_workers: Literal["auto"] | int = "auto"
    """Processes that decode images, per training process; auto: one a core, at most 8."""

    def __post_init__(self) -> None:
        _at_least("img_size", self.img_size, 32)
        # batch norm has no variance of one image
        _at_least("batch_size", self.batch_size, 2)
        if self.epoch_size is not None:
            _at_least("epoch_size", self.epoch_size, 1)
        self._check_source_weights()
        if self.num_workers != "auto":
            _at_least("num_workers", self.num_workers, 0)

    def _check_source_weights(self) -> None:
        weights = self.source_weights
        for weight in weights:
            if not 0 <= weight < math.inf:
                raise UserError(f"--source_weights must be at least 0 and finite, not {weight}")
        if len(weights) == 1:
            raise UserError(
                "--source_weights shares the draws out between several --train_csv, and has one "
                "number: give one for each, or leave it out"
            )
        if weights and not any(weights):
            raise UserError("--source_weights are all 0: nothing would be left to train on")


@dataclass(kw_only=True, slots=True)
class BackboneConfig:
    """The timm model that turns images into features."""

    model: str = "convnextv2_base"
    """Name of a timm model."""
    pretrained: bool = True
    """Start from timm's ImageNet weights, fetched from the hub at the first use."""
    weights_file: Path | None = None
    """Start from this .safetensors file of the timm model's weights and not from the hub's."""
    init_from: Path | None = None
    """Start from the weights of this checkpoint of another run: its backbone, and of the same
    method's head the rows of classes that both have."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the backbone."""
    grad_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        if self.weights_file is not None and not self.pretrained:
            raise UserError(
                "--weights_file and --no-pretrained contradict each other: leave one out"
            )
        if self.weights_file is not None and self.init_from is not None:
            raise UserError("--weights_file and --init_from contradict each other: leave one out")
        _within("drop_path_rate", self.drop_path_rate, 0, 1)


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine, both by step."""

    epochs: int = 30
    """Epochs with the whole model in training."""
    warmup_epochs: float = 0.0
    """Of these, the part over which the learning rate rises from 0; at most half of --epochs unless
    given."""
    weight_decay: float = 0.05
    """Decoupled weight decay; none on biases, norms and per-class scales."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Batches summed into one update."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _within("warmup_epochs", self.warmup_epochs, 0, self.epochs)
        _at_least("accumulate", self.accumulate, 1)
        check_positive(self, "clip_norm")
        check_not_negative(self, "weight_decay")

    def shorten_warmup(self, epochs: int) -> None:
        """Let a default warm-up take at most half of so many `epochs`."""
        self.warmup_epochs = min(self.warmup_epochs, epochs / 2)


@dataclass(kw_only=True, slots=True)
class TwoPhaseConfig(OptimConfig):
    """The same after a phase that trains the head alone."""

    warmup_head_epochs: int = 3
    """Epochs before these in which the head alone is trained on a frozen backbone."""
    warmup_head_lr: float = 1e-3
    """Learning rate of the head in those."""
    warmup_head_weight_decay: float = 0.05
    """Weight decay in those."""
    head_phase: Literal["cached", "exact"] = "cached"
    """cached: keep the features of --head_views augmented passes and train the later ones of those
    epochs on them; exact: compute them anew in each. No difference where there are no more epochs
    than views."""
    head_views: int = 4
    """Augmented passes whose features are kept for a cached head phase."""
    backbone_lr: float = 1e-5
    """Peak learning rate of the backbone."""
    head_lr: float = 1e-4
    """Peak learning rate of the head."""

    def __post_init__(self) -> None:
        # slots make a new class, which zero-argument super() would not find
        OptimConfig.__post_init__(self)
        _at_least("warmup_head_epochs", self.warmup_head_epochs, 0)
        check_positive(self, "warmup_head_lr", "backbone_lr", "head_lr")
        check_not_negative(self, "warmup_head_weight_decay")
        _at_least("head_views", self.head_views, 1)

    @property
    def all_epochs(self) -> int:
        """Epochs of both phases together."""
        return self.warmup_head_epochs + self.epochs


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """What happens around the steps."""

    ema: bool = True
    """Evaluate and save an exponential moving average of the whole model."""
    ema_decay: float = 0.9999
    """Its decay; at step t it is min(ema_decay, (1 + t) / (10 + t))."""
    tta: bool = True
    """Average validation probabilities over the image and its mirror. A mirror swaps the patient's
    left and right."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Macro metric that chooses the best epoch."""
    patience: int | None = None
    """Stop a fold after so many epochs without a better one."""
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    compile: bool = False
    """torch.compile the model."""
    log_every: int = 20
    """Steps between two looks at the loss (each waits for the device)."""
    save_minutes: float = 10.0
    """Minutes between two saved states, besides one an epoch."""
    tensorboard: bool = False
    """Write for TensorBoard too: the epochs' rows, precision-recall curves, images that are trained
    on (needs the extra "tensorboard")."""

    def __post_init__(self) -> None:
        _within("ema_decay", self.ema_decay, 0, 1)
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        _at_least("log_every", self.log_every, 1)
        check_positive(self, "save_minutes")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Where the run is kept."""

    out_dir: Path = Path("outputs/run")
    """Run folder. The same command again goes on where the run stopped."""
    overwrite: bool = False
    """Delete what an earlier run left in the run folder and start anew."""
    dry_run: bool = False
    """Try all of this command in a minute: two updates of each phase of the first fold, on a few
    images, into a folder of its own beside --out_dir. Prints seconds an epoch and peak memory."""
    config: Path | None = None
    """JSON file of settings by flag name, over the preset's and under the command line's."""


def flat(config: Any, *, whole_paths: bool = True) -> dict[str, Any]:
    """All settings of a Config by flag name, as JSON can hold them.

    Paths are texts, of which their last part is left where `whole_paths` is False.
    """
    settings: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            settings |= flat(value, whole_paths=whole_paths)
        else:
            settings[field.name] = _plain(value, whole_paths)
    return settings


def check_positive(config: Any, *names: str) -> None:
    """Raise UserError where a setting of `config` is not above 0 and finite."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise UserError(f"--{name} must be above 0 and finite, not {getattr(config, name)}")


def check_not_negative(config: Any, *names: str) -> None:
    """Raise UserError where a setting of `config` is below 0 or not finite."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"--{name} must be at least 0, not {getattr(config, name)}")


def _plain(value: Any, whole_paths: bool) -> Any:
    if isinstance(value, Path):
        return str(value) if whole_paths else value.name
    return [_plain(item, whole_paths) for item in value] if isinstance(value, tuple) else value


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise UserError(f"--{name} must be at least {least}, not {value}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"--{name} must lie within {low} and {high}, not {value}")
