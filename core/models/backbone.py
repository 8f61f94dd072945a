"""A timm model as feature extractor for grey images in pixel space."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import timm
import torch
from timm.models import split_model_name_tag
from torch import Tensor, nn

from core.config.settings_file import check_file
from core.config.training import BackboneConfig
from core.config.values import types_of
from core.errors import UserError, list_first, pluralize, suggest_name
from core.models.checkpoint import find_not_finite
from core.models.network_size import (
    SizeError,
    check_patches,
    is_buildable,
    likely_sizes,
    size_options,
    without_memory,
)
from core.models.pretrained_weights import checked_loading, first_line

# sizes to try for a sentence
_MOST_TRIALS = 24

Config = TypeVar("Config", bound=BackboneConfig)
Head = TypeVar("Head", bound=nn.Module)


class Backbone(nn.Module):
    """A timm network on normalised grey images: pooled features, or a feature map.

    The first convolution of a three-channel model is adapted to one channel; mean and standard
    deviation are those of `config`, or the means over channels of timm's values for the model.
    `weights` is a safetensors file. `img_size` is that of networks of a fixed size, for which timm
    resamples `weights`; None: timm's default. Raises UserError if timm cannot build the network
    with these settings (SizeError: for this size), or `weights` do not fill it with finite values.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: BackboneConfig,
        weights: Path | None = None,
        *,
        pooled: bool = True,
        img_size: int | None = None,
    ) -> None:
        super().__init__()
        network: Any = _create(config, weights, pooled, img_size)
        try:
            if config.grad_checkpointing:
                network.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise UserError(
                f"{config.model} does not support --grad_checkpointing: leave it out"
            ) from error
        mean, std = (
            torch.tensor(getattr(config, name) or network.pretrained_cfg[name]).mean()
            for name in ("mean", "std")
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        # some networks end in a wider layer than their feature map
        self.num_features: int = getattr(network, "head_hidden_size", network.num_features)
        self.network = network
        self._pooled, self._model, self.config = pooled, config.model, config

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F), or (B, F, h, w), of images (B, 1, H, W), uint8 or in [0, 1].

        F is `num_features`. Raises UserError if features without pooling are not a grid.
        """
        features = self.network(self.normalised(images))
        return features if self._pooled else self._as_map(features)

    def normalised(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), uint8 or in [0, 1], normalised to float."""
        if images.dtype == torch.uint8:
            images = images / 255
        return (images - self.mean) / self.std

    def _as_map(self, features: Tensor) -> Tensor:
        """Unpooled features as (B, F, h, w). Raises UserError if they are not a grid."""
        if not isinstance(features, Tensor):
            raise _no_map(self._model, f"its features are a {type(features).__name__}")
        if features.ndim == 3:
            tokens = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            side = math.isqrt(tokens.shape[1])
            if side**2 != tokens.shape[1]:
                raise _no_map(self._model, f"its {tokens.shape[1]} tokens are not a square grid")
            features = tokens.unflatten(1, (side, side))
        if features.shape[1] != self.num_features:
            features = features.movedim(-1, 1)
        if features.ndim != 4 or features.shape[1] != self.num_features:
            raise _no_map(self._model, f"its features have the shape {tuple(features.shape)}")
        return features


class Classifier(nn.Module, Generic[Head]):
    """A head on a backbone: `forward(images (B, 1, H, W), uint8 or [0, 1]) -> logits (B, C)`."""

    head: Head

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 1, H, W), uint8 or in [0, 1]."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def check_model_name(name: str) -> None:
    """Raise UserError with the nearest name if timm has no model, or no weights, `name`."""
    base = split_model_name_tag(name)[0]
    # a name such as "hf-hub:..." would make timm fetch foreign settings
    if ":" in name or not timm.is_model(base):
        raise UserError(f"timm has no model '{name}'{suggest_name(name, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{base}.*")
        raise UserError(f"timm has no weights '{name}'{suggest_name(name, known)}") from error


@torch.no_grad()
def check_network(model: nn.Module, name: str, size: int) -> None:
    """Run `model` on images (B, 1, size, size), which changes its batch statistics.

    Raises UserError if it does not accept that size, or its tensors or outputs are not finite.
    """
    backbone: Any = model.get_submodule("backbone")
    others = "give other values of --mean and --std"
    if infinite := find_not_finite(model.state_dict()):
        own = {*infinite} <= {"backbone.mean", "backbone.std"}
        # the check of non-finite values would stop every training
        raise UserError(
            f"{name} has values that are not finite in {pluralize(len(infinite), 'tensor')} "
            f"({list_first(infinite)}): {others if own else 'give another --model'}"
        )
    images = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    try:
        outputs = model.eval()(images[:1])
        backbone.train()(images)
    except UserError:
        raise
    # networks raise any exception at an unsupported size
    except Exception as error:
        raise refuse_size(backbone.config, size, first_line(error)) from error
    if not outputs.isfinite().all():
        damaged = "its weights are damaged, give another file"
        given = backbone.config.mean or backbone.config.std
        raise UserError(
            f"the outputs of {name} at --img_size {size} are not finite: "
            f"{others if given else damaged}"
        )


def refuse_size(config: BackboneConfig, size: int, reason: str) -> UserError:
    """Error for a network that does not accept `size`, with the nearest size that it accepts."""
    name = config.model
    network: Any = without_memory(name, {})
    own = network.pretrained_cfg["input_size"][-1]
    if own == size and not config.patch_size:
        return UserError(
            f"{name} fails on one-channel images of its default --img_size {size} ({reason}): give "
            "another --model"
        )
    sizes = {*likely_sizes(network, config.patch_size)} - {size}
    nearest = sorted(sizes, key=lambda one: (abs(one - size), one))
    if found := next((one for one in nearest[:_MOST_TRIALS] if _accepts(config, one)), None):
        remedy = f"give --img_size {found}, the nearest size that it accepts"
    elif _accepts(config, own):
        remedy = f"give --img_size {own}, its default"
    else:
        remedy = "leave out --patch_size" if config.patch_size else "give another --model"
    return UserError(f"{name} does not accept --img_size {size} ({reason}): {remedy}")


@torch.no_grad()
def _accepts(config: BackboneConfig, size: int) -> bool:
    """Whether the network accepts images of `size`, tried without memory."""
    try:
        with torch.device("meta"):
            Backbone(config, img_size=size).eval()(torch.zeros(1, 1, size, size))
    # networks raise any exception at an unsupported size
    except Exception:
        return False
    return True


def model_settings(config: BackboneConfig, *, sized: bool = True) -> dict[str, Any]:
    """Model settings for a checkpoint: the network, and the fields that the method adds.

    `sized`: the network is built for the image size of the checkpoint. Older ones lack the patch
    size, and have timm's default size.
    """
    shared = {field.name for field in fields(BackboneConfig)} - {"model"}
    shared -= {"patch_size"} if sized else set()
    return {name: value for name, value in asdict(config).items() if name not in shared}


def restore_config(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """Model settings of a method from an untrusted checkpoint.

    Raises UserError if they are invalid, or timm has no such network.
    """
    origin = "the model settings of the checkpoint are invalid"
    checked = check_file(dict(settings), types_of(kind()), origin)
    config = kind(**checked | {"pretrained": False})
    check_model_name(config.model)
    return config


def _create(
    config: BackboneConfig, weights: Path | None, pooled: bool, img_size: int | None
) -> nn.Module:
    """Build timm's network. Raises UserError if that fails, or if `weights` do not fill it."""
    model = config.model
    options: dict[str, Any] = {"in_chans": 1, "num_classes": 0}
    if config.drop_path_rate:
        options["drop_path_rate"] = config.drop_path_rate
    if not pooled:
        options["global_pool"] = ""
    sizes = size_options(config, img_size)
    try:
        # first without memory: an error then is not due to the weights
        network = without_memory(model, options | sizes)
        check_patches(network, img_size if sizes else None)
    # timm's constructors raise any exception
    except Exception as error:
        if sizes and is_buildable(model, options):
            raise SizeError(first_line(error)) from error
        if "drop_path_rate" in str(error):
            raise UserError(f"{model} does not support --drop_path_rate: leave it out") from error
        if not pooled:
            raise _no_map(model, first_line(error)) from error
        raise UserError(
            f"timm cannot build {model} ({first_line(error)}): give another --model"
        ) from error
    if weights is None:
        # `load_model` builds without memory too
        is_meta = torch.get_default_device().type == "meta"
        return network if is_meta else timm.create_model(model, **options, **sizes)
    with checked_loading(weights, model):
        overlay = {"file": str(weights)}
        return timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, **options, **sizes
        )


def _no_map(model: str, reason: str) -> UserError:
    return UserError(
        f"{model} has no feature map, which this method needs ({reason}): give another --model, or "
        "use a method with pooled features"
    )
