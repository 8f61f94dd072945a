"""Heat maps against their definitions, and against a known location of the evidence."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import UserError
from ensemble.heatmaps.maps import ensemble_maps, heat_maps
from ensemble.predict.ensemble import Ensemble, Member
from methods import ModelInfo
from methods.csra_db_cas.model import CSRAHead, CSRAModel, NormalisedCSRA
from methods.label_coupling.model import CoupledHead, LabelCoupling
from methods.standard_head.config import ModelConfig
from methods.standard_head.model import build_model

SIZE, CELL, FEATURES, CLASSES = 32, 8, 3, 4


class Network(nn.Module):
    """A feature map of cells of 8 pixels, then their mean, as timm's networks have them."""

    num_features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(1, FEATURES, CELL, CELL)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.cells(images)

    def forward_head(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


class Toy(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.network = Network()
        self.backbone.normalised = lambda images: images / 255  # type: ignore[assignment]
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.backbone.network
        return self.head(network.forward_head(network.forward_features(images / 255)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def noise(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8)


@torch.no_grad()
def features_of(model: Toy, images: Tensor) -> np.ndarray:
    """(B, F, h w)"""
    network: Any = model.backbone.network
    return network.cells(images / 255).flatten(2).numpy()


def enlarged(coarse: np.ndarray, size: int = SIZE) -> np.ndarray:
    """(4, 4) → (size, size), by another library."""
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def test_grad_cam_of_a_linear_head_is_the_weighted_sum_of_its_features() -> None:
    head = nn.Linear(FEATURES, CLASSES)
    model, images = Toy(head).eval(), noise()
    found = heat_maps(model, images, [2, 0])
    assert found.shape == (2, 2, SIZE, SIZE)
    assert found.dtype == torch.float32
    features, weight = features_of(model, images), head.weight.detach().numpy()
    for image in range(2):
        for place, name in enumerate((2, 0)):
            coarse = np.maximum(weight[name] @ features[image], 0).reshape(4, 4)
            expected = enlarged(coarse)
            np.testing.assert_allclose(found[image, place], expected / expected.max(), atol=1e-5)


def test_where_labels_are_coupled_it_is_the_refined_logit() -> None:
    coupling = LabelCoupling(CLASSES, alpha=0.7)
    nn.init.normal_(coupling.A, std=3)
    head = CoupledHead(FEATURES, CLASSES, 0.5, coupling)
    model, images = Toy(head).eval(), noise(1)
    features, weight = features_of(model, images)[0], head.classifier.weight.detach().numpy()
    logits = weight @ features.mean(1) + head.classifier.bias.detach().numpy()
    sigmoid = 1 / (1 + np.exp(-logits))
    mixed = (coupling.A * coupling.off_diagonal).detach().numpy()
    for name in range(CLASSES):
        slopes = 0.7 * sigmoid * (1 - sigmoid) * mixed[:, name]
        gradient = weight[name] + slopes @ weight
        expected = enlarged(np.maximum(gradient @ features, 0).reshape(4, 4))
        found = heat_maps(model, images, [name])[0, 0]
        np.testing.assert_allclose(found, expected / max(expected.max(), 1e-9), atol=1e-4)


def test_csra_has_its_own_scores_from_the_lowest_to_the_highest() -> None:
    attention = CSRAHead(FEATURES, CLASSES, heads=2)
    assert attention.scale is not None
    nn.init.normal_(attention.scale)
    network = Network()
    backbone: Any = lambda images: network.forward_features(images / 255)  # noqa: E731
    head = NormalisedCSRA(FEATURES, attention)
    nn.init.normal_(head.norm.running_mean)  # type: ignore[arg-type]
    model = CSRAModel.__new__(CSRAModel)
    nn.Module.__init__(model)
    model.head = head
    object.__setattr__(model, "backbone", backbone)
    model.eval()
    images = noise()
    found = heat_maps(model, images, [1, 3])
    with torch.no_grad():
        features = head.norm(network.forward_features(images / 255)).flatten(2).numpy()
    weight, scale = attention.weight.detach().numpy(), attention.scale.detach().numpy()
    unit = weight / np.linalg.norm(weight, axis=2, keepdims=True)
    for image in range(2):
        for place, name in enumerate((1, 3)):
            scores = scale[name] * sum(unit[h, name] @ features[image] for h in range(2))
            expected = enlarged(scores.reshape(4, 4).astype(np.float32))
            expected = (expected - expected.min()) / (expected.max() - expected.min())
            np.testing.assert_allclose(found[image, place], expected, atol=1e-5)


def test_tokens_are_weighted_by_their_gradients_where_they_enter_the_last_attention() -> None:
    """Written out for timm's ViT with a class token, 4 x 4 patches."""
    model: Any = build_model(ModelConfig(model="test_vit"), CLASSES, img_size=64).eval()
    images = noise(2, 64)
    vit = model.backbone.network
    grey = (images / 255 - model.backbone.mean) / model.backbone.std
    tokens = vit.patch_embed.proj(grey).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(2, -1, -1), tokens], 1) + vit.pos_embed
    *blocks, last = vit.blocks
    for block in blocks:
        tokens = tokens + block.attn(block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    entering = last.norm1(tokens)
    entering.retain_grad()
    attended = tokens + last.attn(entering)
    final = vit.norm(attended + last.mlp(last.norm2(attended)))
    model.head(final[:, 0])[:, 2].sum().backward()
    patches, gradient = entering[:, 1:].detach().numpy(), entering.grad[:, 1:].numpy()
    expected = np.einsum("bnf,bf->bn", patches, gradient.mean(1)).clip(min=0).reshape(2, 4, 4)
    assert (expected.std((1, 2)) > 0).all()
    found = heat_maps(model, images, [1, 2])[:, 1]
    for image in range(2):
        large = enlarged(expected[image], 64)
        np.testing.assert_allclose(found[image], large / large.max(), atol=1e-4)


def test_pooled_tokens_are_weighted_after_the_last_block() -> None:
    """A network of mean tokens; its map is then, as of a CNN, that of the head's weights."""
    config = ModelConfig(model="vit_tiny_patch16_dinov3_qkvb")
    model: Any = build_model(config, CLASSES, img_size=64).eval()
    network, images = model.backbone.network, noise(1, 64)
    with torch.no_grad():
        tokens = network.forward_features(model.backbone.normalised(images))
    prefix = network.num_prefix_tokens
    assert (prefix, network.global_pool, tokens.shape[1]) == (5, "avg", prefix + 16)
    pooled = network.forward_head(tokens).detach().requires_grad_()
    model.head(pooled)[:, 0].sum().backward()
    assert isinstance(network.fc_norm, nn.Identity)
    expected = (tokens[:, prefix:] @ pooled.grad[0] / 16).relu().reshape(4, 4)
    large = enlarged(expected.numpy(), 64)
    assert large.std() > 0
    np.testing.assert_allclose(heat_maps(model, images, [0])[0, 0], large / large.max(), atol=1e-4)


def test_it_leaves_the_model_and_the_mode_unchanged() -> None:
    model = Toy(nn.Linear(FEATURES, CLASSES)).eval().requires_grad_(False)
    model.head.weight.requires_grad_(True)
    images = noise(1)
    expected = heat_maps(model, images, [0])
    with torch.inference_mode():
        found = heat_maps(model, images, [0])
        assert torch.is_inference_mode_enabled()
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert [n for n, one in model.named_parameters() if one.requires_grad] == ["head.weight"]
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert all(one.grad is None for one in model.parameters())


def test_a_model_without_a_map_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = build_model(ModelConfig(model="pit_ti_224", pretrained=False), CLASSES).eval()
    images = torch.zeros(1, 1, 224, 224, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"VisionTransformer has no feature map.*csra_db_cas"):
        heat_maps(pooled, images, [0])
    model = Toy(nn.Linear(FEATURES, CLASSES)).eval()
    nn.init.constant_(model.head.weight, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not finite"):
        heat_maps(model, noise(1), [0])
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r'pip install -c constraints.txt -e "\.\[explain\]"'):
        heat_maps(model, noise(1), [0])


def test_an_ensembles_map_is_the_mean_by_shares_of_the_models_that_have_the_class() -> None:
    members = []
    for names in (("a", "b"), ("c", "a")):
        info = ModelInfo("toy", names, SIZE, {})
        members.append(Member(Path(names[0]), Toy(nn.Linear(FEATURES, 2)).eval(), info, ""))
    pixels = noise(1)[0, 0].numpy()
    ensemble = Ensemble(members, np.array([0.25, 0.75]), ["c", "a"])
    each, mean = ensemble_maps(ensemble, pixels, ensemble.class_names, (16, 48))
    assert each.shape == (2, 2, 16, 48)
    assert np.isnan(each[0, 0]).all()
    small = [
        functional.interpolate(
            heat_maps(one.model, torch.from_numpy(pixels)[None, None], [place]),
            size=(16, 48),
            mode="bilinear",
        )[0, 0].numpy()
        for one, place in zip(members, (0, 1), strict=True)
    ]
    np.testing.assert_allclose(each[:, 1], small, atol=1e-6)
    np.testing.assert_allclose(mean[0], each[1, 0], atol=1e-6)
    np.testing.assert_allclose(mean[1], 0.25 * small[0] + 0.75 * small[1], atol=1e-6)
