"""Groups of settings that the methods share; a method's Config is made of them.

Attribute docstrings are the flags' help; names are unique over all groups because the command line
is flat. `check` of a group refuses settings that contradict each other.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from core.config import values
from core.config.data import DataConfig
from core.config.loss import LossConfig
from core.config.values import Count, Fraction, NotNegative, Positive, PositiveInt, Seed, Workers
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class SplitConfig:
    """How patients are divided into folds."""

    folds: values.Folds = 5
    """Number of patient-disjoint folds."""
    run_folds: tuple[int, ...] = ()
    """Folds to train now, counted from 1, e.g. --run_folds 1 2; all when not given."""
    seed: Seed = 42
    """Seed of folds, weights, order, augmentation and dropout."""

    def check(self) -> None:
        """Raise UserError where --run_folds names no fold, or one twice."""
        wrong = [fold for fold in self.run_folds if not 1 <= fold <= self.folds]
        if wrong:
            raise UserError(f"--run_folds counts from 1 to --folds {self.folds}, not {wrong[0]}")
        if len(set(self.run_folds)) < len(self.run_folds):
            raise UserError("--run_folds names a fold twice")


@dataclass(kw_only=True, slots=True)
class LoaderConfig:
    """How images reach the model."""

    img_size: Annotated[int, Meta(ge=32)] = 512
    """Side of the square image, in pixels."""
    # batch norm has no variance of one image
    batch_size: Annotated[int, Meta(ge=2)] = 64
    """Images in a batch, per process."""
    sampler: Literal["uniform", "class_aware", "repeat_factor"] = "uniform"
    """Which images an epoch takes: each once (uniform), each class in its turn (class_aware, Shen
    2016), or images of rare classes repeated (repeat_factor, Gupta 2019)."""
    epoch_size: PositiveInt | None = None
    """Images in an epoch; as many as there are unless given (repeat_factor: with the repeats)."""
    source_weights: tuple[NotNegative, ...] = ()
    """Shares of an epoch's draws, one for each --train_csv; by their number of images if none."""
    num_workers: Workers = "auto"
    """Processes that decode images, per training process; auto: one a core, at most 8."""

    def check(self) -> None:
        """Raise UserError where --source_weights share nothing out."""
        weights = self.source_weights
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
    """Start from timm's ImageNet weights, fetched from the hub at the first use; where they cannot
    be, the run stops. --no-pretrained: random weights."""
    weights_file: Path | None = None
    """Start from this .safetensors file of the timm model's weights and not from the hub's."""
    init_from: Path | None = None
    """Start from the weights of this checkpoint of another run: its backbone, and of the same
    method's head the rows of classes that both have."""
    drop_path_rate: Fraction = 0.0
    """Stochastic depth of the backbone."""
    grad_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def check(self) -> None:
        """Raise UserError where two settings name the weights to start from."""
        if self.weights_file is not None and not self.pretrained:
            raise UserError(
                "--weights_file and --no-pretrained contradict each other: leave one out"
            )
        if self.weights_file is not None and self.init_from is not None:
            raise UserError("--weights_file and --init_from contradict each other: leave one out")


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine, both by step."""

    epochs: PositiveInt = 30
    """Epochs that train the whole model; those of a head phase come before these."""
    warmup_epochs: float = 0.0
    """Of these, the part over which the learning rate rises from 0; at most half of --epochs unless
    given."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay; none on biases, norms and per-class scales."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    accumulate: PositiveInt = 1
    """Batches summed into one update."""

    def check(self) -> None:
        """Raise UserError where the warm-up is longer than the training."""
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                f"--warmup_epochs must lie within 0 and {self.epochs}, not {self.warmup_epochs}"
            )

    @property
    def all_epochs(self) -> int:
        """Epochs of all phases together."""
        return self.epochs

    def shorten_warmup(self, epochs: int) -> None:
        """Let a default warm-up take at most half of so many `epochs`."""
        self.warmup_epochs = min(self.warmup_epochs, epochs / 2)


@dataclass(kw_only=True, slots=True)
class TwoPhaseConfig(OptimConfig):
    """The same after a phase that trains the head alone."""

    warmup_head_epochs: Count = 3
    """Epochs before these in which the head alone is trained on a frozen backbone."""
    warmup_head_lr: Positive = 1e-3
    """Learning rate of the head in those."""
    warmup_head_weight_decay: NotNegative = 0.05
    """Weight decay in those."""
    head_phase: Literal["cached", "exact"] = "cached"
    """cached: keep the features of --head_views augmented passes and train the later ones of those
    epochs on them; exact: compute them anew in each. No difference where there are no more epochs
    than views."""
    head_views: PositiveInt = 4
    """Augmented passes whose features are kept for a cached head phase."""
    backbone_lr: Positive = 1e-5
    """Peak learning rate of the backbone."""
    head_lr: Positive = 1e-4
    """Peak learning rate of the head."""

    @property
    def all_epochs(self) -> int:
        """Epochs of both phases together."""
        return self.warmup_head_epochs + self.epochs


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """What happens around the steps."""

    ema: bool = True
    """Evaluate and save an exponential moving average of the whole model."""
    ema_decay: Fraction = 0.9999
    """Its decay; at step t it is min(ema_decay, (1 + t) / (10 + t))."""
    tta: bool = True
    """Average validation probabilities over the image and its mirror. A mirror swaps the patient's
    left and right."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Macro metric that chooses the best epoch."""
    patience: PositiveInt | None = None
    """Stop a fold after so many epochs without a better one."""
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    compile: bool = False
    """torch.compile the model."""
    log_every: PositiveInt = 20
    """Steps between two looks at the loss (each waits for the device)."""
    save_minutes: Positive = 10.0
    """Minutes between two saved states, besides one an epoch."""
    tensorboard: bool = False
    """Write for TensorBoard too: the epochs' rows, precision-recall curves, images that are trained
    on (needs the extra "tensorboard")."""


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


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Settings of one run; a method replaces groups by its own, and their defaults."""

    preset: Literal["auto", "paper", "small"] = "auto"
    """Defaults of the other flags: paper (for a GPU), small (minutes on a CPU), auto: paper where
    there is an accelerator, else small."""
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: BackboneConfig = field(default_factory=BackboneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def check(self) -> None:
        """Raise UserError where settings of several groups contradict each other."""
        first, epochs = self.loss.drw_epoch, self.optim.all_epochs
        if first is not None and not 1 <= first <= epochs:
            within = f"within 1 and the {epochs} epochs of the training, all phases"
            raise UserError(f"--drw_epoch must lie {within}, not {first}")
