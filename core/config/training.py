"""Groups of settings for the Config of each method.

Attribute docstrings are the help of the flags. Names are unique over all groups because the command
line is flat. `check` of a group rejects contradicting settings.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from core.config import values
from core.config.data import DataConfig
from core.config.loss import LossConfig
from core.config.values import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    PositiveInt,
    Seed,
    Switch,
    Workers,
)
from core.errors import UserError

# largest image size, also of a checkpoint
MAX_IMG_SIZE = 8192


@dataclass(kw_only=True, slots=True)
class SplitConfig:
    """Division of patients into folds."""

    folds: values.Folds = 5
    """Number of patient-disjoint folds."""
    run_folds: tuple[int, ...] = ()
    """Folds to train now, counted from 1, e.g. --run_folds 1 2; all when not given."""
    seed: Seed = 42
    """Random seed of folds, weights, order, augmentation and dropout."""

    def check(self) -> None:
        """Raise UserError if --run_folds has an invalid or repeated fold."""
        wrong = [fold for fold in self.run_folds if not 1 <= fold <= self.folds]
        if wrong:
            raise UserError(f"--run_folds counts from 1 to --folds {self.folds}, not {wrong[0]}")
        if len(set(self.run_folds)) < len(self.run_folds):
            raise UserError("--run_folds names a fold twice")


@dataclass(kw_only=True, slots=True)
class LoaderConfig:
    """Image size, batches, sampling and loader workers."""

    img_size: Annotated[int, Meta(ge=32, le=MAX_IMG_SIZE)] = 512
    """Side of the square image, in pixels; networks of a fixed size are built for it."""
    # batch norm needs two images
    batch_size: Annotated[int, Meta(ge=2)] = 64
    """Images per batch and process."""
    sampler: Literal["uniform", "class_aware", "repeat_factor"] = "uniform"
    """Images of an epoch: each once (uniform), drawn class by class (class_aware, Shen 2016), or
    with images of rare classes repeated (repeat_factor, Gupta 2019)."""
    sampler_mix: Fraction = 0.0
    """Share of an epoch's draws that are uniform; the others are those of --sampler."""
    sampler_cap: Annotated[float, Meta(ge=1)] | None = None
    """Maximum draws an epoch of a class (repeat_factor: of an image) by --sampler, in multiples of
    its positive images; by default no limit."""
    epoch_size: PositiveInt | None = None
    """Images per epoch; by default the number of images (repeat_factor: with repeats)."""
    source_weights: tuple[NotNegative, ...] = ()
    """Fractions of an epoch, one for each --train_csv; by default by number of images."""
    num_workers: Workers = "auto"
    """Processes that decode images, per training process; auto: one a core, at most 8."""

    def check(self) -> None:
        """Raise UserError for invalid --source_weights, and settings of no sampler."""
        if self.sampler == "uniform" and (self.sampler_mix or self.sampler_cap is not None):
            flag = "--sampler_mix" if self.sampler_mix else "--sampler_cap"
            raise UserError(f"{flag} has no effect on --sampler uniform: name another sampler")
        weights = self.source_weights
        if len(weights) == 1:
            raise UserError(
                "--source_weights has one number: give one for each of several --train_csv, or "
                "leave it out"
            )
        if weights and not any(weights):
            raise UserError("--source_weights are all 0: give at least one above 0")


@dataclass(kw_only=True, slots=True)
class BackboneConfig:
    """timm model for image features, and its starting weights."""

    model: str = "convnextv2_base"
    """Name of a timm model."""
    pretrained: bool = True
    """Start from timm's ImageNet weights, downloaded from the hub at the first use (an error if
    that fails). --no-pretrained: random weights."""
    weights_name: str | None = None
    """Start from these public weights (docs/backbones.md), which set --model, --img_size,
    --patch_size, --mean and --std; downloaded unless --weights_file holds them."""
    weights_file: Path | None = None
    """Start from this .safetensors file of the model's weights instead of the hub's."""
    init_from: Path | None = None
    """Start from this checkpoint of another run: its backbone, and, for the same method, the head's
    rows of shared classes."""
    mean: tuple[float, ...] = ()
    """Mean of the images for which the starting weights were trained, in [0, 1]; by default timm's
    for --model. With --std, kept in the checkpoint; --init_from takes them from its checkpoint."""
    std: tuple[Positive, ...] = ()
    """Standard deviation of these images; by default timm's for --model."""
    patch_size: PositiveInt | None = None
    """Side of a transformer's patches, in pixels, if not timm's for --model."""
    drop_path_rate: Fraction = 0.0
    """Stochastic depth of the backbone."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""

    def check(self) -> None:
        """Raise UserError if two settings name starting weights, or for several channels."""
        for name in ("weights_name", "weights_file"):
            if getattr(self, name) is None:
                continue
            if not self.pretrained:
                raise UserError(
                    f"--{name} and --no-pretrained contradict each other: leave one out"
                )
            if self.init_from is not None:
                raise UserError(f"--{name} and --init_from contradict each other: leave one out")
        for name, given in (("mean", self.mean), ("std", self.std)):
            if len(given) > 1:
                raise UserError(
                    f"--{name} has {len(given)} values, but images are grey: give their mean, "
                    f"--{name} {sum(given) / len(given):.4g}"
                )
            if given and self.init_from is not None:
                raise UserError(
                    f"--{name} and --init_from contradict each other: leave out --{name}, as the "
                    "checkpoint has its own"
                )


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine schedule, both by step."""

    epochs: Count = 30
    """Epochs that train the whole model, after those of a head phase; 0: the head phase alone."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up at the start of --epochs; at most half of them by default."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay; none on biases, norms and per-class scales."""
    clip_norm: Positive = 1.0
    """Maximum gradient norm."""
    accumulate: PositiveInt = 1
    """Batches summed into one update."""
    layer_decay: PositiveFraction = 1.0
    """Learning rate of each layer of the backbone as a fraction of that of the layer above; the
    last layer and the head keep theirs (BEiT, Bao 2022). 1: off."""
    freeze_backbone: bool = False
    """Train the head alone, in all epochs of all phases, on features of the starting weights: at
    the rate and weight decay of the head phase, or at --lr where a method has no such phase."""
    head_phase: Literal["cached", "exact"] = "cached"
    """Of a frozen backbone. cached: cache the features of --head_views augmented passes and train
    the later epochs on them; exact: compute features in each epoch. Equal if there are no more
    epochs than passes."""
    head_views: PositiveInt = 4
    """Augmented passes to cache of a frozen backbone."""
    retrain_epochs: Count = 0
    """Epochs at the end that train the head again, on a backbone frozen at its moving average and
    images drawn by --retrain_sampler (Kang 2020). The better weights by --monitor are kept."""
    retrain_sampler: Literal["uniform", "class_aware", "repeat_factor"] = "class_aware"
    """Sampler of --retrain_epochs."""
    retrain_lr: Positive = 1e-3
    """Peak learning rate of the head in --retrain_epochs."""

    def check(self) -> None:
        """Raise UserError if nothing is trained, or settings of layers or warm-up are invalid."""
        if not self.all_epochs:
            raise UserError(
                "--epochs 0 trains the head phase alone, which this run does not have: give "
                "--epochs 1 or more"
            )
        if self.layer_decay < 1 and self.trains_head_alone:
            raise UserError(
                "--layer_decay is for a backbone that is trained: leave out --freeze_backbone and "
                "--epochs 0, or --layer_decay"
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                f"--warmup_epochs must lie within 0 and {self.epochs}, not {self.warmup_epochs}"
            )

    @property
    def all_epochs(self) -> int:
        """Total number of epochs of all phases."""
        return self.epochs + self.retrain_epochs

    @property
    def trains_head_alone(self) -> bool:
        """Whether the backbone is frozen in all epochs."""
        return self.freeze_backbone or not self.epochs

    @property
    def cached_passes(self) -> int:
        """Passes over a frozen backbone to cache; 0: none."""
        return self.head_views if self.head_phase == "cached" else 0

    def shorten_warmup(self, epochs: int) -> None:
        """Limit a default warm-up to half of `epochs`."""
        self.warmup_epochs = min(self.warmup_epochs, epochs / 2)


@dataclass(kw_only=True, slots=True)
class TwoPhaseConfig(OptimConfig):
    """`OptimConfig` with a head phase before: the head is trained on a frozen backbone."""

    warmup_head_epochs: Count = 3
    """Epochs of the head phase, which trains the head on a frozen backbone before --epochs."""
    warmup_head_lr: Positive = 1e-3
    """Learning rate in the head phase."""
    warmup_head_weight_decay: NotNegative = 0.05
    """Weight decay in the head phase."""
    backbone_lr: Positive = 1e-5
    """Peak learning rate of the backbone."""
    head_lr: Positive = 1e-4
    """Peak learning rate of the head."""

    @property
    def all_epochs(self) -> int:
        """Total number of epochs of both phases."""
        return self.warmup_head_epochs + self.epochs + self.retrain_epochs


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """Evaluation, early stopping, precision, logging and saving."""

    ema: bool = True
    """Evaluate and save an exponential moving average of the whole model."""
    ema_decay: Fraction = 0.9999
    """Decay of the moving average; at step t it is min(ema_decay, (1 + t) / (10 + t))."""
    tta: bool = True
    """Average validation probabilities over the image and its mirror image, which swaps the
    patient's left and right."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Macro metric that selects the best epoch."""
    patience: PositiveInt | None = None
    """Stop a fold after this many epochs without a better one."""
    amp: Switch = "auto"
    """Autocast: on, the same as --amp; off, --no-amp; auto, on for a GPU alone. On a GPU bf16, or
    fp16 without it. On a CPU with bf16, on times both precisions first and takes the faster."""
    compile: bool = False
    """torch.compile the model."""
    log_every: PositiveInt = 20
    """Steps between two logs of the loss (each waits for the device)."""
    save_minutes: Positive = 10.0
    """Minutes between two saves of the resume state, in addition to one an epoch."""
    logger: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers, e.g. --logger tensorboard wandb (each needs the extra of its name): settings,
    scalars of each epoch, precision-recall curves, pictures, tables (docs/run-folder.md)."""
    tensorboard: bool = False
    """The same as --logger tensorboard."""

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of --logger and --tensorboard, each once."""
        return tuple(dict.fromkeys(("tensorboard",) * self.tensorboard + self.logger))


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Run folder, resume and dry run."""

    out_dir: Path = Path("outputs/run")
    """Run folder. Rerun the same command to resume a stopped run."""
    overwrite: bool = False
    """Delete the earlier run in the run folder and start again."""
    dry_run: bool = False
    """Try the whole command in a minute: two updates of each phase of the first fold, on a few
    images, in a separate folder beside --out_dir. Prints time, disk space and peak memory."""
    config: Path | None = None
    """JSON file of settings by flag name; overrides the preset, and flags override it."""


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Settings of one run; methods replace groups and their defaults."""

    preset: Literal["auto", "paper", "small"] = "auto"
    """Defaults of the other flags: paper (for a GPU), small (minutes on a CPU), auto (paper with an
    accelerator, else small)."""
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: BackboneConfig = field(default_factory=BackboneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def check(self) -> None:
        """Raise UserError if settings of several groups contradict each other."""
        first, epochs = self.loss.drw_epoch, self.optim.all_epochs
        if first is not None and not 1 <= first <= epochs:
            within = f"within 1 and the {epochs} epochs of the training, all phases"
            raise UserError(f"--drw_epoch must lie {within}, not {first}")
        if self.optim.retrain_epochs and self.optim.retrain_sampler == self.loader.sampler:
            raise UserError(
                f"--retrain_epochs needs another sampler than --sampler {self.loader.sampler}: "
                "give another --retrain_sampler"
            )
