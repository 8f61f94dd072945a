"""Settings of the standard head, and its presets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.config.data import DataConfig
from core.config.loss import LossConfig, check_drw_epoch
from core.config.training import (
    BackboneConfig,
    LoaderConfig,
    LoopConfig,
    RunConfig,
    SplitConfig,
    TwoPhaseConfig,
)
from core.config.values import FractionBelowOne


@dataclass(kw_only=True, slots=True)
class ModelConfig(BackboneConfig):
    """Backbone and head."""

    drop_rate: FractionBelowOne = 0.3
    """Dropout before each of the head's two linear layers."""


@dataclass(kw_only=True, slots=True)
class Config:
    """Settings of one run."""

    preset: Literal["auto", "paper", "small"] = "auto"
    """Defaults of the other flags: paper (for a GPU), small (minutes on a CPU), auto: by what is
    here."""
    run: RunConfig = field(default_factory=lambda: RunConfig(out_dir=Path("outputs/standard_head")))
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: TwoPhaseConfig = field(default_factory=TwoPhaseConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def check(self) -> None:
        """Raise UserError where settings of several groups contradict each other."""
        check_drw_epoch(self.loss, self.optim.all_epochs)


def paper() -> Config:
    """ConvNeXtV2-Base at 512 px: the defaults of the groups."""
    return Config()


def small() -> Config:
    """ConvNeXtV2-Atto at 96 px: minutes on two cores, from random weights if need be."""
    return Config(
        split=SplitConfig(folds=3),
        loader=LoaderConfig(img_size=96, batch_size=32),
        model=ModelConfig(model="convnextv2_atto"),
        optim=TwoPhaseConfig(
            epochs=15,
            warmup_epochs=1.0,
            warmup_head_epochs=1,
            backbone_lr=5e-4,
            head_lr=1e-3,
        ),
        loop=LoopConfig(ema_decay=0.999, log_every=10),
    )


PRESETS = {"paper": paper, "small": small}
