"""The backbone equals timm's model on grey images, and says where its weights come from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import core.models.backbone
from core.config.training import BackboneConfig
from core.errors import UserError
from core.models.backbone import Backbone, check_model_name, find_weights

# timm's own miniature models; the first has a mean of its own for each colour
COLOUR, TINY = "test_efficientnet", "test_convnext"
REAL = Path(__file__).resolve().parents[4] / "shared/weights/tf_efficientnet_lite0_in1k.safetensors"


def images(size: int = 64) -> Tensor:
    """uint8 (2, 1, size, size)"""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8, generator=generator)


def untrained(model: str) -> Backbone:
    return Backbone(BackboneConfig(model=model, pretrained=False)).eval()


def weights_of(model: str, folder: Path) -> tuple[Any, Path]:
    """A random three-channel timm model without classifier, and a file of its weights."""
    torch.manual_seed(0)
    network: Any = timm.create_model(model, pretrained=False, num_classes=1000)
    # statistics that are not 0 and 1
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    path = folder / f"{model}.safetensors"
    save_file(network.state_dict(), path)
    network.reset_classifier(0)
    return network.eval(), path


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


@pytest.mark.parametrize("model", [COLOUR, TINY, "test_vit2"])
def test_bytes_and_floats_agree(model: str) -> None:
    backbone = untrained(model)
    with torch.no_grad():
        features = backbone(images())
        torch.testing.assert_close(backbone(images() / 255), features, rtol=1e-5, atol=1e-5)


# networks whose last layer is wider than their feature map are the trap
@pytest.mark.parametrize("model", [COLOUR, TINY, "mobilenetv3_small_050", "lcnet_035"])
def test_width_of_the_features(model: str) -> None:
    backbone = untrained(model)
    with torch.no_grad():
        assert backbone(images()).shape == (2, backbone.num_features)


def test_features_of_a_file_are_those_of_the_colour_model(tmp_path: Path) -> None:
    network, path = weights_of(TINY, tmp_path)
    backbone = Backbone(BackboneConfig(model=TINY), path).eval()
    colour = ((images() / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1)
    with torch.no_grad():
        truth = network(colour)
        assert truth.std() > 1e-3
        torch.testing.assert_close(backbone(images()), truth, rtol=1e-4, atol=1e-4)


def test_real_weights_give_the_colour_models_features() -> None:
    if not REAL.is_file():
        pytest.skip(f"no real weights: {REAL} does not exist")
    model = "tf_efficientnet_lite0"
    network: Any = timm.create_model(model, pretrained=False)
    network.load_state_dict(load_file(REAL))
    network.reset_classifier(0)
    backbone = Backbone(BackboneConfig(model=model, weights_file=REAL), REAL).eval()
    colour = ((images(96) / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1)
    with torch.no_grad():
        truth = network.eval()(colour)
        assert truth.std() > 0.1
        torch.testing.assert_close(backbone(images(96)), truth, rtol=1e-3, atol=1e-4)


def test_weights_of_another_size_and_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    _, path = weights_of("test_convnext2", tmp_path)
    with pytest.raises(UserError, match=r"test_convnext2\.safetensors does not hold weights of"):
        Backbone(BackboneConfig(model=TINY), path)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UserError, match="does not hold weights of"):
        Backbone(BackboneConfig(model=TINY), path)


def test_options_reach_the_network() -> None:
    config = BackboneConfig(
        model=TINY, pretrained=False, drop_path_rate=0.5, grad_checkpointing=True
    )
    network = Backbone(config).network
    rates = [m.drop_prob for m in network.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.5)
    assert any(getattr(m, "grad_checkpointing", False) for m in network.modules())


def test_a_model_without_stochastic_depth_says_so() -> None:
    config = BackboneConfig(model="dla46_c", pretrained=False, drop_path_rate=0.1)
    with pytest.raises(UserError, match="dla46_c takes no --drop_path_rate"):
        Backbone(config)


# --- where weights come from -------------------------------------------------------------------


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No hub and an empty cache; the repositories that were asked for."""
    asked: list[str] = []

    def answers(repository: str) -> bool:
        asked.append(repository)
        return False

    monkeypatch.setattr(core.models.backbone, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(core.models.backbone, "_answers", answers)
    return asked


@pytest.mark.usefixtures("unreachable")
def test_unreachable_weights_are_an_error_that_names_both_ways_out_unless_optional() -> None:
    config = BackboneConfig(model="convnextv2_atto")
    with pytest.raises(UserError, match=r"convnextv2_atto.*--weights_file.*--no-pretrained"):
        find_weights(config, optional=False)
    weights, sentence = find_weights(config, optional=True)
    assert weights is None
    assert "untrained" in sentence
    assert "--weights_file" in sentence


def test_a_hub_that_fails_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(core.models.backbone, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(UserError, match="cannot be reached"):
        find_weights(BackboneConfig(model="convnextv2_atto"), optional=False)
    # it answers, and fails in the middle
    monkeypatch.setattr(core.models.backbone, "_answers", lambda _: True)
    monkeypatch.setattr(core.models.backbone, "hf_hub_download", fail)
    with pytest.raises(UserError, match="cannot be reached"):
        find_weights(BackboneConfig(model="convnextv2_atto"), optional=False)


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("resnet10t", ["timm/resnet10t.c3_in1k"]),
        # an old name of timm
        ("tf_efficientnet_b4_ns", ["timm/tf_efficientnet_b4.ns_jft_in1k"]),
        # without weights anywhere
        ("efficientnet_b8", []),
    ],
)
def test_the_repository_that_is_asked(model: str, asked: list[str], unreachable: list[str]) -> None:
    find_weights(BackboneConfig(model=model), optional=True)
    assert unreachable == asked


@pytest.mark.parametrize("kind", ["cache", "file", "untrained", "init_from"])
def test_what_needs_no_hub(
    kind: str, unreachable: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    config, told = BackboneConfig(model=TINY), f"ImageNet weights of {TINY}"
    if kind == "cache":
        monkeypatch.setattr(core.models.backbone, "try_to_load_from_cache", lambda *_: str(path))
    elif kind == "file":
        config, told = BackboneConfig(model=TINY, weights_file=path), str(path)
    elif kind == "untrained":
        config, told = BackboneConfig(model=TINY, pretrained=False), "untrained"
    else:
        config, told = BackboneConfig(model=TINY, init_from=path), ""
    weights, sentence = find_weights(config, optional=False)
    assert weights == (path if kind in ("cache", "file") else None)
    assert told in sentence
    assert unreachable == []


def test_weights_files_that_are_refused(tmp_path: Path) -> None:
    missing = BackboneConfig(model=TINY, weights_file=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"--weights_file .*w\.safetensors is not there"):
        find_weights(missing, optional=True)
    for name in ("w.pth", "w.pt", "w.bin", "w"):
        (tmp_path / name).touch()
        config = BackboneConfig(model=TINY, weights_file=tmp_path / name)
        with pytest.raises(UserError, match=r"must be a \.safetensors file"):
            find_weights(config, optional=True)
        with pytest.raises(UserError, match="contradict"):
            replace(config, pretrained=False).check()


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
    message = rf"timm has no (model|weights) .{name}.*{hint}"
    with pytest.raises(UserError, match=message) as refused:
        check_model_name(name)
    assert len(str(refused.value)) < 500
    config = BackboneConfig(model=name, pretrained=False)
    with pytest.raises(UserError, match=message):
        find_weights(config, optional=True)


@pytest.mark.parametrize(
    "name", ["convnextv2_atto", "convnextv2_atto.fcmae", "tf_efficientnet_b4_ns", "vgg11"]
)
def test_known_models_pass(name: str) -> None:
    check_model_name(name)


def test_nothing_is_fetched_to_build_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", fail)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)
    monkeypatch.setattr("socket.socket.connect", fail)
    # weights that were not found are not looked for again
    Backbone(BackboneConfig(model=TINY, pretrained=True), weights=None)
