"""Model of standard_head: pooled features, and a two-layer or linear head."""

from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.models.backbone import Backbone, Classifier
from methods.standard_head.config import ModelConfig

HIDDEN = 512


class Head(nn.Sequential):
    """Layers from features (B, F) to logits (B, C), of which the last one is linear."""

    @torch.no_grad()
    def start_at(self, logits: Tensor) -> None:
        """Make `logits` (C,) the bias of the last layer."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(logits)


class StandardHead(Head):
    """BatchNorm → Dropout → Linear(F, 512) → ReLU → BatchNorm → Dropout → Linear(512, C).

    Features (B, F) to logits (B, C).
    """

    # which dimensions count classes (core/models/init_from.py)
    class_dimensions: ClassVar = {"6.weight": (0,), "6.bias": (0,)}

    def __init__(self, features: int, classes: int, drop_rate: float) -> None:
        super().__init__(
            nn.BatchNorm1d(features),
            nn.Dropout(drop_rate),
            nn.Linear(features, HIDDEN),
            nn.ReLU(),
            nn.BatchNorm1d(HIDDEN),
            nn.Dropout(drop_rate),
            nn.Linear(HIDDEN, classes),
        )


class LinearHead(Head):
    """BatchNorm → Dropout → Linear(F, C)."""

    class_dimensions: ClassVar = {"linear.weight": (0,), "linear.bias": (0,)}

    def __init__(self, features: int, classes: int, drop_rate: float) -> None:
        norm, linear = nn.BatchNorm1d(features), nn.Linear(features, classes)
        super().__init__(OrderedDict(norm=norm, dropout=nn.Dropout(drop_rate), linear=linear))


def build_model(
    config: ModelConfig,
    num_classes: int,
    weights: Path | None = None,
    *,
    img_size: int | None = None,
) -> Classifier[Head]:
    """Build the model of images (B, 1, H, W), uint8 or in [0, 1], to logits (B, num_classes).

    `weights` of the backbone are a file as `core.models.starting_weights` finds it. Raises
    UserError as `Backbone` does.
    """
    backbone = Backbone(config, weights, img_size=img_size)
    kind = LinearHead if config.head == "linear" else StandardHead
    return Classifier(backbone, kind(backbone.num_features, num_classes, config.drop_rate))
