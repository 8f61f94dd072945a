"""Settings and presets of csra_db_cas."""

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
from core.config.values import NotNegative


@dataclass(kw_only=True, slots=True)
class ModelConfig(BackboneConfig):
    """Backbone and head."""

    csra_heads: Literal[1, 2, 4, 6, 8] = 1
    """Number of attention heads, which are summed; each has another temperature."""
    csra_lambda: NotNegative = 0.1
    """Weight of the attention relative to mean pooling; 0: mean pooling alone."""
    csra_scale: bool = True
    """Learn a scale and a bias for each class, an addition to the paper."""


@dataclass(kw_only=True, slots=True)
class Config(TrainingConfig):
    """Settings of one run; by default `paper`: ConvNeXtV2-Base at 512 px."""

    run: RunConfig = field(default_factory=lambda: RunConfig(out_dir=Path("outputs/csra_db_cas")))
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(sampler="class_aware"))
    model: ModelConfig = field(default_factory=lambda: ModelConfig(drop_path_rate=0.2))
    loss: LossConfig = field(
        default_factory=lambda: LossConfig(loss="distribution_balanced", logit_adjust=0.0)
    )
    optim: TwoPhaseConfig = field(
        default_factory=lambda: TwoPhaseConfig(
            warmup_head_epochs=10,
            warmup_head_weight_decay=0.01,
            epochs=60,
            warmup_epochs=5.0,
            backbone_lr=1.5e-5,
            head_lr=1.5e-4,
        )
    )


def small() -> Config:
    """ConvNeXtV2-Atto at 96 px, each image drawn once an epoch: minutes on two cores."""
    return Config(
        split=SplitConfig(folds=3),
        loader=LoaderConfig(img_size=96, batch_size=32),
        model=ModelConfig(model="convnextv2_atto"),
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
