"""Settings and presets of label_coupling."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core.config.loss import LossConfig
from core.config.training import (
    BackboneConfig,
    LoaderConfig,
    LoopConfig,
    OptimConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
)
from core.config.values import FractionBelowOne, NotNegative, Positive
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class ModelConfig(BackboneConfig):
    """Backbone, linear head and refiner."""

    drop_rate: FractionBelowOne = 0.4
    """Dropout before the linear layer."""
    refiner: bool = True
    """Refine the logits by learned couplings between the labels."""
    coupling_alpha: Positive = 0.3
    """Weight of the couplings, alpha in z + alpha sigmoid(z) A."""


@dataclass(kw_only=True, slots=True)
class CouplingOptimConfig(OptimConfig):
    """Learning rates of the model and of the couplings, and the penalty of the couplings."""

    lr: Positive = 2e-4
    """Peak learning rate of backbone and head."""
    coupling_lr: Positive = 1e-2
    """Peak learning rate of the couplings; at --lr they would hardly change in a short training."""
    coupling_l1: NotNegative = 3e-5
    """L1 penalty on all |A|, on the scale of the mean loss; sets entries to exactly 0."""
    couplings_only: Path | None = None
    """Fit only the couplings, to the frozen logits of this checkpoint: fast, and best on images
    outside of its training. Network and image size are those of the checkpoint; settings of batches
    and epochs have no effect."""


@dataclass(kw_only=True, slots=True)
class CoupledLossConfig(LossConfig):
    """Losses; bce weights positives by default."""

    pos_weight: bool = True
    """With --loss bce: weight positives by clip(negatives / positives, 1, 10) of the training."""

    def check(self) -> None:
        """Raise UserError for an invalid constant of the loss."""
        self.constants()


@dataclass(kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of the training images, in addition to a crop and a mirror."""

    rotation: Annotated[float, Meta(ge=0, le=180)] = 10.0
    """Largest rotation in degrees, to both sides."""
    color_jitter: bool = False
    """Change brightness and contrast by up to 5 %."""


@dataclass(kw_only=True, slots=True)
class TestConfig:
    """Test images, predicted by the trained folds."""

    test_csv: Path | None = None
    """CSV with the names of the test images; by default every image of --test_dir."""
    test_dir: Path | None = None
    """Folder of images to predict after training; by default none, unless --test_csv is given."""
    out_csv: Path = Path("submission.csv")
    """CSV of their probabilities: the image column of --train_csv, then one column a label."""
    ensemble_folds: bool = True
    """Average the predictions of all folds; otherwise use the fold with the best --monitor."""


@dataclass(kw_only=True, slots=True)
class Config(TrainingConfig):
    """Settings of one run; by default `paper`: SE-ResNeXt-101 at 380 px, three epochs a fold."""

    run: RunConfig = field(
        default_factory=lambda: RunConfig(out_dir=Path("outputs/label_coupling"))
    )
    test: TestConfig = field(default_factory=TestConfig)
    split: SplitConfig = field(default_factory=lambda: SplitConfig(folds=3))
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(img_size=380, batch_size=24))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(model="seresnext101_32x4d"))
    loss: CoupledLossConfig = field(default_factory=lambda: CoupledLossConfig(logit_adjust=0.0))
    optim: CouplingOptimConfig = field(
        default_factory=lambda: CouplingOptimConfig(epochs=3, warmup_epochs=1.0, weight_decay=1e-4)
    )
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(ema_decay=0.999, monitor="mAUROC", patience=3)
    )

    def check(self) -> None:
        """Raise UserError if settings of several groups contradict each other."""
        TrainingConfig.check(self)
        optim = self.optim
        others = {
            "--freeze_backbone": optim.freeze_backbone,
            "--layer_decay": optim.layer_decay < 1,
            "--retrain_epochs": optim.retrain_epochs,
            "--weights_name": self.model.weights_name,
            "--weights_file": self.model.weights_file,
            "--amp": self.loop.amp == "on",
        }
        for flag in [flag for flag, given in others.items() if given and optim.couplings_only]:
            raise UserError(
                "--couplings_only takes backbone and head from its checkpoint, untrained: leave "
                f"out {flag}"
            )
        if optim.couplings_only and not self.model.refiner:
            raise UserError("--couplings_only fits the couplings of the refiner: add --refiner")
        if optim.couplings_only and self.model.init_from:
            raise UserError("--couplings_only and --init_from contradict each other: leave one out")
        if optim.couplings_only and (self.model.mean or self.model.std):
            raise UserError(
                "--couplings_only takes mean and std from its checkpoint: leave out --mean, --std"
            )


def small() -> Config:
    """ConvNeXtV2-Atto at 96 px, without couplings: minutes on two cores."""
    return Config(
        loader=LoaderConfig(img_size=96, batch_size=32),
        model=ModelConfig(model="convnextv2_atto", refiner=False),
        optim=CouplingOptimConfig(epochs=8, warmup_epochs=0.5, weight_decay=1e-4, lr=4e-4),
        loop=LoopConfig(ema_decay=0.999, log_every=10),
    )


PRESETS: dict[str, Callable[[], Config]] = {"paper": Config, "small": small}
