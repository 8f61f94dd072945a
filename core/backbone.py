"""A timm model as feature extractor for grey images in pixel space."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from safetensors import safe_open
from timm.models import get_deprecated_models, split_model_name_tag
from torch import Tensor, nn

from core.config import BackboneConfig
from core.errors import UserError, nearest, some

Config = TypeVar("Config", bound=BackboneConfig)


class Backbone(nn.Module):
    """Normalises grey images and turns them into timm's features: pooled, or a map of them.

    The first convolution of a three-channel model is adapted to one channel; mean and standard
    deviation are the means over channels of timm's values for the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: BackboneConfig, weights: Path | None = None, *, pooled: bool = True
    ) -> None:
        super().__init__()
        network: Any = _create(config, weights, {} if pooled else {"global_pool": ""})
        if weights is not None:
            _check_names(network, weights, config.model)
        if config.grad_checkpointing:
            network.set_grad_checkpointing(True)
        self.register_buffer("mean", torch.tensor(network.pretrained_cfg["mean"]).mean())
        self.register_buffer("std", torch.tensor(network.pretrained_cfg["std"]).mean())
        # some networks end in a wider layer than their feature map
        self.num_features: int = getattr(network, "head_hidden_size", network.num_features)
        self.network = network
        self._pooled = pooled

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F), or (B, F, h, w), of images (B, 1, H, W), uint8 or in [0, 1]."""
        features = self.network(self.normalised(images))
        return features if self._pooled else self._as_map(features)

    def normalised(self, images: Tensor) -> Tensor:
        """What the network takes: float (B, 1, H, W) of images, uint8 or in [0, 1]."""
        if images.dtype == torch.uint8:
            images = images / 255
        return (images - self.mean) / self.std

    def _as_map(self, features: Tensor) -> Tensor:
        """Unpooled features of any timm network as (B, F, h, w).

        Raises RuntimeError where they are not those of places in a square grid.
        """
        if features.ndim == 3:
            places = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            side = math.isqrt(places.shape[1])
            features = places.unflatten(1, (side, side))
        if features.shape[1] != self.num_features:
            features = features.movedim(-1, 1)
        return features


def find_weights(config: BackboneConfig, *, optional: bool) -> tuple[Path | None, str]:
    """The file of pretrained weights that `config` asks for, and a sentence that says which.

    `optional`: hub weights that cannot be reached give None and not an error. Raises UserError for
    an unknown model, a missing file and (unless optional) unreachable weights.
    """
    check_model_name(config.model)
    if config.init_from is not None:
        return None, f"{config.model} starts from {config.init_from}"
    if config.weights_file is not None:
        if not config.weights_file.is_file():
            raise UserError(f"--weights_file {config.weights_file} is not there")
        if config.weights_file.suffix != ".safetensors":
            raise UserError(
                f"--weights_file {config.weights_file} must be a .safetensors file: other formats "
                "can run code when they are read"
            )
        return config.weights_file, f"weights of {config.model} from {config.weights_file}"
    if not config.pretrained:
        return None, f"{config.model} starts untrained (--no-pretrained)"
    # settings of weights are kept under timm's current names only
    source = timm.get_pretrained_cfg(get_deprecated_models().get(config.model) or config.model)
    repository = source.hf_hub_id if source else None
    fetched = _fetch(repository) if repository else None
    if fetched is not None:
        return fetched, f"ImageNet weights of {config.model} from {repository}"
    if optional:
        return None, (
            f"{config.model} starts untrained: its ImageNet weights cannot be reached "
            "(--weights_file FILE to give them)"
        )
    raise UserError(
        f"the ImageNet weights of {config.model} cannot be reached; give them by --weights_file "
        "FILE.safetensors or start untrained by --no-pretrained"
    )


def check_model_name(name: str) -> None:
    """Raise UserError with the nearest name where timm has no model, or no weights, `name`."""
    base = split_model_name_tag(name)[0]
    # a name such as "hf-hub:..." would make timm fetch settings of a stranger's choosing
    if ":" in name or not timm.is_model(base):
        raise UserError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{base}.*")
        raise UserError(f"timm has no weights '{name}'{nearest(name, known)}") from error


@torch.no_grad()
def check_image_size(model: nn.Module, name: str, size: int) -> None:
    """Raise UserError where `model` cannot take images of `size` pixels a side."""
    try:
        model.eval()(torch.zeros(1, 1, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = _first_line(error)
        raise UserError(f"{name} takes no images of --img_size {size}: {reason}") from error


def _first_line(error: Exception) -> str:
    """What it says, or what it is: an assertion may say nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fetch(repository: str) -> Path | None:
    """Weights from the hub's cache, else from the hub; None where it does not answer."""
    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if not _answers(repository):
        return None
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except (OSError, ValueError):  # every error of the hub is one of these
        return None


def _answers(repository: str) -> bool:
    """Whether the hub answers at once; its own download retries for most of a minute."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(repository, timeout=5)
    except Exception:  # whatever fails here, the weights cannot be had
        return False
    return True


def restore_config(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """A method's model settings from those of a checkpoint.

    Raises UserError where they are not understood: they may come from anywhere.
    """
    try:
        config = kind(pretrained=False, **settings)
        check_model_name(config.model)
    except (TypeError, AttributeError) as error:
        raise UserError(f"the checkpoint's model settings are not understood: {error}") from error
    for name, default in asdict(kind(pretrained=False)).items():
        value = getattr(config, name)
        number = type(default) is float and type(value) in (int, float) and math.isfinite(value)
        if not number and type(value) is not type(default):
            raise UserError(f"the checkpoint's model settings are not understood: {name} {value}")
    return config


def _create(config: BackboneConfig, weights: Path | None, unpooled: dict[str, Any]) -> nn.Module:
    options: dict[str, Any] = {"in_chans": 1, "num_classes": 0} | unpooled
    if config.drop_path_rate:
        options["drop_path_rate"] = config.drop_path_rate
    overlay = {"file": str(weights)} if weights else None
    try:
        return timm.create_model(
            config.model,
            pretrained=weights is not None,
            pretrained_cfg_overlay=overlay,
            **options,
        )
    except TypeError as error:
        raise UserError(f"{config.model} takes no --drop_path_rate ({error})") from error
    except Exception as error:
        if weights is None:
            raise
        reason = _first_line(error)
        raise UserError(f"{weights} does not hold weights of {config.model}: {reason}") from error


def _check_names(network: nn.Module, weights: Path, model: str) -> None:
    """Raise UserError where the file lacks the network's tensors: timm passes over them silently.

    Some files leave out a last norm, so that a tenth may be missing.
    """
    wanted = set(network.state_dict())
    with safe_open(weights, framework="pt") as file:
        missing = sorted(wanted - set(file.keys()))
    if len(missing) > len(wanted) / 10:
        raise UserError(
            f"{weights} does not hold weights of {model}: it lacks {some(missing)} of "
            f"{len(wanted)} tensors"
        )
