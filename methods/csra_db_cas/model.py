"""Model of csra_db_cas: class-specific residual attention (Zhu & Wu 2021) on a feature map."""

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import UserError
from core.models.backbone import Backbone, Classifier
from methods.csra_db_cas.config import ModelConfig

# a temperature of 99 stands for the maximum
TEMPERATURES = {
    1: (1,),
    2: (1, 99),
    4: (1, 2, 4, 99),
    6: (1, 2, 3, 4, 5, 99),
    8: (1, 2, 3, 4, 5, 6, 7, 99),
}


class CSRAHead(nn.Module):
    """Class-specific residual attention, maps (B, F, H, W) to logits (B, C).

    Zhu & Wu 2021, eq. 1 to 7: class c scores s_ck = <W_c, x_k> / ||W_c|| at place k; a head gives
    mean_k s_ck + lam sum_k s_ck softmax_k(T s_ck). The heads, each with its own temperature T and
    weights W, are summed. `scale` adds a learned scale (from 1) and bias (from 0) for each class:
    normalised scores are bounded, and their probabilities could not be calibrated. Raises UserError
    for an unsupported number of heads and for a `lam` below 0.
    """

    # which dimensions count classes (core/models/init_from.py)
    class_dimensions: ClassVar = {"weight": (1,), "scale": (0,), "bias": (0,)}

    def __init__(
        self, features: int, classes: int, heads: int = 1, lam: float = 0.1, scale: bool = True
    ) -> None:
        super().__init__()
        if heads not in TEMPERATURES:
            raise UserError(f"the number of attention heads must be 1, 2, 4, 6 or 8, not {heads}")
        if not 0 <= lam < math.inf:
            raise UserError(f"the weight of the attention must be at least 0, not {lam}")
        self.temperatures, self.lam = TEMPERATURES[heads], lam
        # as in a linear layer: the smaller a normalised W, the faster it rotates
        bound = features**-0.5
        self.weight = nn.Parameter(torch.empty(heads, classes, features).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(classes)) if scale else None
        self.bias = nn.Parameter(torch.zeros(classes)) if scale else None

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, F, H, W)."""
        scores = self._scores(features)
        logits = scores.mean(dim=-1).sum(dim=1)
        if self.lam:
            attended = [
                _attend(scores[:, head], temperature)
                for head, temperature in enumerate(self.temperatures)
            ]
            logits = logits + self.lam * torch.stack(attended).sum(dim=0)
        if self.scale is not None and self.bias is not None:
            logits = self.scale * logits + self.bias
        return logits

    def maps(self, features: Tensor) -> Tensor:
        """Scores as maps (B, C, H, W), scaled and summed over the heads.

        The mean over a map is the logit without attention and bias.
        """
        maps = self._scores(features).sum(dim=1)
        if self.scale is not None:
            maps = self.scale[:, None] * maps
        return maps.unflatten(-1, features.shape[-2:])

    def _scores(self, features: Tensor) -> Tensor:
        """Scores (B, heads, C, H W), in float32 under any autocast, for the softmax."""
        with torch.autocast(features.device.type, enabled=False):
            weight = functional.normalize(self.weight.float(), dim=-1)
            return torch.einsum("hcf,bfk->bhck", weight, features.flatten(2).float())


def _attend(scores: Tensor, temperature: int) -> Tensor:
    """Scores (B, C, K) averaged by softmax(temperature scores) over the places K, (B, C)."""
    if temperature == 99:
        return scores.amax(dim=-1)
    return (scores * (temperature * scores).softmax(dim=-1)).sum(dim=-1)


class NormalisedCSRA(nn.Module):
    """BatchNorm2d, then residual attention; features (B, F, H, W) to logits (B, C)."""

    def __init__(self, features: int, attention: CSRAHead) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features)
        self.attention = attention

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, F, H, W)."""
        return self.attention(self.norm(features))

    @torch.no_grad()
    def start_at(self, logits: Tensor) -> None:
        """Make `logits` (C,) the classes' bias, where they have one."""
        if self.attention.bias is not None:
            self.attention.bias.copy_(logits)


class CSRAModel(Classifier[NormalisedCSRA]):
    """Classifier with its own heat maps."""

    def forward_maps(self, images: Tensor) -> Tensor:
        """Heat maps (B, C, h, w) of images (B, 1, H, W), in logits (see `CSRAHead.maps`)."""
        return self.head.attention.maps(self.head.norm(self.backbone(images)))


def build_model(
    config: ModelConfig,
    num_classes: int,
    weights: Path | None = None,
    *,
    img_size: int | None = None,
) -> CSRAModel:
    """Build the model of images (B, 1, H, W), uint8 or in [0, 1], to logits (B, num_classes).

    `weights` of the backbone are a file as `core.models.starting_weights` finds it. Raises
    UserError as `Backbone` and `CSRAHead` do.
    """
    backbone = Backbone(config, weights, pooled=False, img_size=img_size)
    features = backbone.num_features
    attention = CSRAHead(
        features, num_classes, config.csra_heads, config.csra_lambda, config.csra_scale
    )
    return CSRAModel(backbone, NormalisedCSRA(features, attention))
