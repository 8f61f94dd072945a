"""Model of label_coupling: pooled features, a linear layer, and couplings between labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.models.backbone import Backbone, Classifier
from methods.label_coupling.config import ModelConfig


class LabelCoupling(nn.Module):
    """z' = z + alpha sigmoid(z) A for logits z (B, C).

    A[i, j], of (C, C), acts from label i on label j; its diagonal has no effect. A starts at 0, as
    the identity.
    """

    # without weight decay, shrunk by the L1 penalty, equally sparse in the moving average
    sparse = ("A",)
    # which dimensions count classes (core/models/init_from.py)
    class_dimensions: ClassVar = {"A": (0, 1)}
    off_diagonal: Tensor

    def __init__(self, classes: int, alpha: float = 0.3) -> None:
        super().__init__()
        self.alpha = alpha
        self.A = nn.Parameter(torch.zeros(classes, classes))
        self.register_buffer("off_diagonal", 1 - torch.eye(classes), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Refined logits (B, C) of logits (B, C)."""
        return logits + self.alpha * torch.sigmoid(logits) @ (self.A * self.off_diagonal)


class CoupledHead(nn.Module):
    """Dropout → Linear(F, C) → LabelCoupling (if used); features (B, F) to logits (B, C)."""

    class_dimensions: ClassVar = {"classifier.weight": (0,), "classifier.bias": (0,)}

    def __init__(
        self, features: int, classes: int, drop_rate: float, coupling: LabelCoupling | None
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(features, classes)
        self.coupling = coupling

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, F)."""
        logits = self.classifier(self.dropout(features))
        return logits if self.coupling is None else self.coupling(logits)

    @torch.no_grad()
    def start_at(self, logits: Tensor) -> None:
        """Make `logits` (C,) the bias of the linear layer."""
        self.classifier.bias.copy_(logits)


def build_model(
    config: ModelConfig,
    num_classes: int,
    weights: Path | None = None,
    *,
    img_size: int | None = None,
) -> Classifier[CoupledHead]:
    """Build the model of images (B, 1, H, W), uint8 or in [0, 1], to logits (B, num_classes).

    `weights` of the backbone are a file as `core.models.starting_weights` finds it. Raises
    UserError as `Backbone` does.
    """
    backbone = Backbone(config, weights, img_size=img_size)
    coupling = LabelCoupling(num_classes, config.coupling_alpha) if config.refiner else None
    head = CoupledHead(backbone.num_features, num_classes, config.drop_rate, coupling)
    return Classifier(backbone, head)


def check_labels(config: ModelConfig, class_names: Sequence[str]) -> None:
    """Raise UserError for a refiner with fewer than two labels."""
    if config.refiner and len(class_names) < 2:
        raise UserError(
            f"couplings need two labels, and there is only {class_names[0]}: give more with "
            "--labels, or train with --no-refiner"
        )
