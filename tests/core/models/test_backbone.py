"""The backbone equals timm's model on grey images, and unknown models are refused."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from core.config.training import BackboneConfig
from core.errors import UserError
from core.models.backbone import (
    Backbone,
    Classifier,
    check_model_name,
    check_network,
    refuse_size,
)

# timm's own miniature models; the first has a mean of its own for each colour
COLOUR, TINY = "test_efficientnet", "test_convnext"


def images(size: int = 64) -> Tensor:
    """uint8 (2, 1, size, size)"""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8, generator=generator)


def untrained(model: str) -> Backbone:
    return Backbone(BackboneConfig(model=model, pretrained=False)).eval()


# --- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "mean", "std"),
    [
        (COLOUR, (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3),
        ("convnextv2_atto", (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3),
        (TINY, 0.5, 0.5),
    ],
)
def test_normalisation_is_the_mean_over_channels(model: str, mean: float, std: float) -> None:
    backbone = untrained(model)
    assert {"mean", "std"} <= backbone.state_dict().keys()
    assert backbone.mean.item() == pytest.approx(mean, rel=1e-6)
    assert backbone.std.item() == pytest.approx(std, rel=1e-6)
    seen: list[Tensor] = []
    backbone.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backbone(images())
    torch.testing.assert_close(seen[0], (images() / 255 - mean) / std, rtol=1e-4, atol=1e-4)


def test_given_mean_and_std_replace_timms() -> None:
    config = BackboneConfig(model=TINY, pretrained=False, mean=(0.5307,), std=(1 / 2048,))
    backbone = Backbone(config)
    assert backbone.mean.item() == pytest.approx(0.5307)
    torch.testing.assert_close(
        backbone.normalised(images()), (images() / 255 - 0.5307) * 2048, rtol=1e-4, atol=1e-2
    )
    assert {"mean", "std"} <= backbone.state_dict().keys()


# networks with a last layer wider than their feature map are the trap
@pytest.mark.parametrize("model", [TINY, "test_vit2", "mobilenetv3_small_050", "lcnet_035"])
def test_width_of_the_features_and_of_floats_as_of_bytes(model: str) -> None:
    backbone = untrained(model)
    with torch.no_grad():
        features = backbone(images())
        assert features.shape == (2, backbone.num_features)
        torch.testing.assert_close(backbone(images() / 255), features, rtol=1e-5, atol=1e-5)


def test_features_of_a_file_are_those_of_the_colour_model(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    network: Any = timm.create_model(TINY, pretrained=False).eval()
    save_file(network.state_dict(), path)
    network.reset_classifier(0)
    backbone = Backbone(BackboneConfig(model=TINY), path).eval()
    colour = ((images() / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1)
    with torch.no_grad():
        truth = network(colour)
        assert truth.std() > 1e-3
        torch.testing.assert_close(backbone(images()), truth, rtol=1e-4, atol=1e-4)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UserError, match=r"w\.safetensors does not hold weights of"):
        Backbone(BackboneConfig(model=TINY), path)


def test_options_reach_the_network() -> None:
    config = BackboneConfig(
        model=TINY, pretrained=False, drop_path_rate=0.5, grad_checkpointing=True
    )
    network = Backbone(config).network
    rates = [m.drop_prob for m in network.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.5)
    assert any(getattr(m, "grad_checkpointing", False) for m in network.modules())


def test_weights_are_resampled_to_another_image_and_patch_size(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network: Any = timm.create_model("test_vit", pretrained=False)
    save_file(network.state_dict(), path)
    config = BackboneConfig(model="test_vit", patch_size=8)
    found: Any = Backbone(config, path, img_size=64).network
    grey = network.patch_embed.proj.weight.sum(1, keepdim=True)
    expected = resample_patch_embed(grey, [8, 8])
    torch.testing.assert_close(found.patch_embed.proj.weight, expected, rtol=1e-3, atol=1e-4)
    expected = resample_abs_pos_embed(network.pos_embed, [8, 8], num_prefix_tokens=1)
    torch.testing.assert_close(found.pos_embed, expected)


@pytest.mark.parametrize(
    ("patch_size", "size", "remedy"),
    [
        (10, 64, "give --img_size 60, the nearest"),
        (12, 64, "give --img_size 60, the nearest"),
        (8, 75, "give --img_size 72, the nearest"),
        (100, 160, "give --img_size 200, the nearest"),
        (9000, 160, "leave out --patch_size"),
        (None, 161, "give --img_size 160, the nearest"),
    ],
)
def test_the_size_that_is_advised(patch_size: int | None, size: int, remedy: str) -> None:
    config = BackboneConfig(model="test_vit", pretrained=False, patch_size=patch_size)
    assert f"(why): {remedy}" in str(refuse_size(config, size, "why"))


@pytest.mark.parametrize("given", [{"std": (1e-38,)}, {"mean": (1e39,)}])
def test_outputs_that_are_not_finite_by_the_given_values(given: dict[str, Any]) -> None:
    config = BackboneConfig(model=TINY, pretrained=False, **given)
    with pytest.raises(UserError, match=r"not finite.*: give other values of --mean and --std"):
        check_network(Classifier(Backbone(config), nn.Identity()), TINY, 64)


def test_a_model_without_stochastic_depth_is_refused_with_the_reason() -> None:
    config = BackboneConfig(model="dla46_c", pretrained=False, drop_path_rate=0.1)
    with pytest.raises(UserError, match="dla46_c does not support --drop_path_rate"):
        Backbone(config)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnextv2_ato", "convnextv2_atto"),
        ("ConvNeXtV2_Base", "convnextv2_base"),
        ("tf_efficientnet_lite_0", "tf_efficientnet_lite0"),
        ("convnextv2_atto.fcmae_ft_in1", "convnextv2_atto.fcmae_ft_in1k"),
        ("hf-hub:someone/something", ""),
        ("hf_hub:someone/something", ""),
        ("local-dir:/tmp", ""),
        ("", ""),
        ("../convnextv2_atto", ""),
    ],
)
def test_unknown_models_are_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=rf"timm has no (model|weights) .{name}.*{hint}") as refused:
        check_model_name(name)
    assert len(str(refused.value)) < 500
