"""Nearest timm model of the tensors in a file, for the message that refuses it."""

from collections.abc import Mapping
from functools import cache

import timm
import torch
from timm.models import split_model_name_tag
from torch import Tensor

from core.models.weight_names import select_backbone

# families of public weights by their smallest member; building one takes some 0.2 s
_FAMILIES = {
    "resnet18": ("resnet34", "resnet50", "resnet101", "resnet152"),
    "densenet121": ("densenet169", "densenet201"),
    "convnext_tiny": ("convnext_small", "convnext_base", "convnext_large"),
    "convnextv2_atto": ("convnextv2_nano", "convnextv2_tiny", "convnextv2_base"),
    "vit_tiny_patch16_224": tuple(f"vit_{s}_patch16_224" for s in ("small", "base", "large")),
    "vit_small_patch14_dinov2": ("vit_base_patch14_dinov2", "vit_large_patch14_dinov2"),
    "eva02_tiny_patch14_224": ("eva02_small_patch14_224", "eva02_base_patch14_224"),
    "swin_tiny_patch4_window7_224": tuple(
        f"swin_{size}_patch4_window7_224" for size in ("small", "base", "large")
    ),
    "tf_efficientnet_lite0": ("tf_efficientnet_b0", "tf_efficientnet_b4"),
    "mobilenetv3_small_100": ("mobilenetv3_small_075",),
    "mobilenetv3_large_100": ("mobilenetv3_large_075",),
    "regnety_002": ("regnety_032",),
    "cait_xxs24_224": ("cait_xs24_384", "cait_s24_224"),
    "deit3_small_patch16_224": ("deit3_base_patch16_224", "deit3_large_patch16_224"),
    "beit_base_patch16_224": ("beit_large_patch16_224",),
    "maxvit_tiny_tf_224": ("maxvit_small_tf_224", "maxvit_base_tf_224"),
    "swinv2_tiny_window8_256": ("swinv2_small_window8_256", "swinv2_base_window8_256"),
}
# share of the tensors of file and model together that agree in name and shape
_ALIKE = 0.8


def nearest_model(tensors: Mapping[str, Tensor], model: str) -> str | None:
    """The timm model, other than `model`, that most `tensors` fit; None if none fits well."""
    empty = {name: one.to("meta") for name, one in tensors.items() if one.is_floating_point()}
    if not empty:
        return None
    named = {name: _fit(empty, name, by_shape=False) for name in _FAMILIES}
    # ViTs of several families have the same names
    families = [name for name, fit in named.items() if fit and fit == max(named.values())]
    fits = {name: _fit(empty, name) for one in families for name in (one, *_FAMILIES[one])}
    best = max(fits, key=lambda name: fits[name], default=None)
    own = split_model_name_tag(model)[0]
    return best if best and best != own and fits[best] >= _ALIKE else None


def _fit(tensors: Mapping[str, Tensor], model: str, by_shape: bool = True) -> float:
    """Share of the backbone's tensors in either that agree in name, and in shape."""
    wanted = _shapes(model)
    selected = select_backbone(tensors, wanted.keys()).tensors
    common = selected.keys() & wanted.keys()
    agree = [name for name in common if not by_shape or _shape(selected[name]) == wanted[name]]
    return len(agree) / max(len(wanted), len(selected))


@cache
def _shapes(model: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False, num_classes=0)
    return {n: _shape(one) for n, one in network.state_dict().items() if one.is_floating_point()}


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape without what depends on the size and the channels of the image."""
    if tensor.ndim == 4:
        return (tensor.shape[0], *tensor.shape[2:])
    return tuple(tensor.shape) if tensor.ndim < 3 else (tensor.shape[-1],)
