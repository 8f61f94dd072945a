"""Image and patch size of timm's networks of a fixed size."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from core.config.training import MAX_IMG_SIZE, BackboneConfig
from core.errors import UserError


class SizeError(UserError):
    """Image size that a network cannot be built for."""


def without_memory(model: str, options: Mapping[str, Any]) -> nn.Module:
    """Build timm's network on the meta device. Raises any exception."""
    with torch.device("meta"):
        return timm.create_model(model, pretrained=False, **options)


def is_buildable(model: str, options: Mapping[str, Any]) -> bool:
    """Whether timm builds the network with these options."""
    with suppress(Exception):
        return bool(without_memory(model, options))
    return False


@cache
def _default(model: str) -> Any:
    """timm's network of its default size, without memory; None if timm cannot build it."""
    return without_memory(model, {}) if is_buildable(model, {}) else None


def size_options(config: BackboneConfig, img_size: int | None) -> dict[str, Any]:
    """Options for image and patch size, if they are given and the network takes them.

    Raises UserError if it takes no patch size.
    """
    options: dict[str, Any] = {}
    if (network := _default(config.model)) is None:
        return options
    takes = signature(type(network).__init__).parameters
    # some classes take it by **kwargs
    if img_size and ("img_size" in takes or network.pretrained_cfg.get("fixed_input_size")):
        options["img_size"] = img_size
    if config.patch_size:
        if "patch_size" not in takes:
            raise UserError(f"{config.model} does not support --patch_size: leave it out")
        options["patch_size"] = config.patch_size
        own = getattr(network, "patch_embed", None)
        if own is not None and "ref_feat_shape" in takes and own.patch_size[0] != config.patch_size:
            # rotary positions count in patches of the size in pretraining
            side = network.pretrained_cfg["input_size"][-1] // config.patch_size
            options["ref_feat_shape"] = (side, side)
    return options


def likely_sizes(network: Any, patch_size: int | None) -> list[int]:
    """Image sizes of 32 px or more that timm's `network` may accept with this patch size."""
    patches = getattr(network, "patch_embed", None)
    if isinstance(patches, PatchEmbed) and not patches.dynamic_img_pad:
        steps = {patch_size or patches.patch_size[0]}
    else:
        steps = {14, 16, patch_size or 16}
    sizes = {size for step in steps for size in range(step, MAX_IMG_SIZE + 1, step)}
    return [size for size in sizes if size >= 32]


def check_patches(network: Any, img_size: int | None) -> None:
    """Raise ValueError if timm would cut off the edge of images of `img_size`."""
    patches = getattr(network, "patch_embed", None)
    if not img_size or not isinstance(patches, PatchEmbed) or patches.dynamic_img_pad:
        return
    if img_size % (side := patches.patch_size[0]):
        raise ValueError(f"it is not a multiple of its patches of {side} px")
