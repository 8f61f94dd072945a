"""Settings and presets of standard_head."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.config.loss import LossConfig
from core.config.training import (
    BackboneConfig,
    LoaderConfig,
    LoopConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
    TwoPhaseConfig,
)
from core.config.values import FractionBelowOne


@dataclass(kw_only=True, slots=True)
class ModelConfig(BackboneConfig):
    """Backbone and head."""

    drop_rate: FractionBelowOne = 0.3
    """Dropout before each linear layer of the head."""
    head: Literal["mlp", "linear"] = "mlp"
    """mlp: two linear layers; linear: a single one, with --freeze_backbone a linear probe."""


@dataclass(kw_only=True, slots=True)
class Config(TrainingConfig):
    """Settings of one run; by default `paper`: ConvNeXtV2-Base at 512 px."""

    run: RunConfig = field(default_factory=lambda: RunConfig(out_dir=Path("outputs/standard_head")))
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: TwoPhaseConfig = field(default_factory=TwoPhaseConfig)


def small() -> Config:
    """ConvNeXtV2-Atto at 96 px, fine-tuned with a linear head: minutes on two cores."""
    return Config(
        split=SplitConfig(folds=3),
        loader=LoaderConfig(img_size=96, batch_size=32),
        model=ModelConfig(model="convnextv2_atto", head="linear"),
        loss=LossConfig(logit_adjust=0.0),
        optim=TwoPhaseConfig(
            epochs=8,
            warmup_epochs=0.5,
            warmup_head_epochs=0,
            backbone_lr=2e-4,
            head_lr=2e-3,
        ),
        loop=LoopConfig(ema_decay=0.999, log_every=10),
    )


PRESETS: dict[str, Callable[[], Config]] = {"paper": Config, "small": small}
