"""Residual attention by the paper's formula, and the maps behind its logits."""

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from methods.csra_db_cas.config import ModelConfig
from methods.csra_db_cas.model import CSRAHead, build_model

# Zhu & Wu 2021, section 3.3: the last head of several takes the maximum
PUBLISHED: dict[int, list[float]] = {
    1: [1],
    2: [1, math.inf],
    4: [1, 2, 4, math.inf],
    6: [1, 2, 3, 4, 5, math.inf],
    8: [1, 2, 3, 4, 5, 6, 7, math.inf],
}
FEATURES, CLASSES = 5, 3


def written_out(features: Tensor, weight: Tensor, temperatures: list[float], lam: float) -> Tensor:
    """The logits (B, C) place by place; `weight` (heads, C, F)."""
    logits = torch.zeros(len(features), CLASSES, dtype=torch.float64)
    images, places = features.double(), range(features[0, 0].numel())
    for image in range(len(features)):
        at = images[image].flatten(1)  # (F, K)
        for head, temperature in enumerate(temperatures):
            for c in range(CLASSES):
                w = weight[head, c].double()
                length = math.sqrt(sum(float(value) ** 2 for value in w))
                scores = [float(w @ at[:, k]) / length for k in places]
                if temperature == math.inf:
                    attention = max(scores)
                else:
                    powers = [math.exp(temperature * score) for score in scores]
                    attention = sum(s * e for s, e in zip(scores, powers, strict=True))
                    attention /= sum(powers)
                logits[image, c] += sum(scores) / len(scores) + lam * attention
    return logits


def make_head(heads: int = 1, lam: float = 0.1, *, scale: bool = True) -> CSRAHead:
    torch.manual_seed(heads)
    return CSRAHead(FEATURES, CLASSES, heads, lam, scale)


@pytest.fixture
def features() -> Tensor:
    return 2 * torch.randn(4, FEATURES, 3, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.7])
def test_logits_are_the_written_out_formula(heads: int, lam: float, features: Tensor) -> None:
    for scale in (True, False):
        head = make_head(heads, lam, scale=scale)
        expected = written_out(features, head.weight.detach(), PUBLISHED[heads], lam)
        torch.testing.assert_close(head(features).double(), expected, atol=1e-5, rtol=1e-5)


def test_scale_and_bias_belong_to_their_class(features: Tensor) -> None:
    head = make_head(2)
    plain = head(features)
    scale, bias = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([0.5, 0.0, 7.0])
    assert head.scale is not None
    assert head.bias is not None
    head.scale.data.copy_(scale)
    head.bias.data.copy_(bias)
    torch.testing.assert_close(head(features), plain * scale + bias)


def test_maps_are_the_scores_of_each_place(features: Tensor) -> None:
    head = make_head(2, lam=0.0)
    maps = head.maps(features)
    assert maps.shape == (4, CLASSES, 3, 2)
    # a place alone: what the head gives for a map of nothing else
    alone = head(features[:, :, 1:2, 0:1])
    torch.testing.assert_close(maps[:, :, 1, 0], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), head(features), atol=1e-5, rtol=1e-5)


def test_a_model_gives_a_map_for_each_class_of_any_backbone() -> None:
    images = torch.randint(0, 256, (2, 1, 160, 160), dtype=torch.uint8)
    for name in ("test_efficientnet", "test_vit"):
        config = ModelConfig(model=name, pretrained=False, csra_lambda=0.0)
        model = build_model(config, CLASSES).eval()
        with torch.no_grad():
            maps, logits = model.forward_maps(images), model(images)
        assert maps.shape[:2] == (2, CLASSES)
        assert maps.shape[2] == maps.shape[3] > 1
        # the bias starts at 0
        torch.testing.assert_close(maps.mean(dim=(2, 3)), logits, atol=1e-4, rtol=1e-4)


def test_an_image_moved_by_one_place_moves_its_map() -> None:
    """Maps lie as the image does: rows down, columns to the right."""
    config = ModelConfig(model="test_convnext", pretrained=False)
    model = build_model(config, CLASSES).eval()
    images = torch.zeros(1, 1, 128, 128)
    images[..., 8:24, 72:88] = 1.0
    with torch.no_grad():
        change = (model.forward_maps(images) - model.forward_maps(torch.zeros_like(images))).abs()
    side = change.shape[-1]
    row, column = divmod(int(change.sum(dim=1)[0].argmax()), side)
    assert (row, column) == (16 * side // 128, 80 * side // 128)


def test_what_the_head_refuses() -> None:
    for heads in (0, 3, 5, 99):
        with pytest.raises(UserError, match=f"must be 1, 2, 4, 6 or 8, not {heads}"):
            CSRAHead(FEATURES, CLASSES, heads)
    for lam in (-0.1, math.nan):
        with pytest.raises(UserError, match="at least 0"):
            CSRAHead(FEATURES, CLASSES, lam=lam)
