"""Heat maps: CSRA's attention, and Grad-CAM (Selvaraju et al. 2017) by captum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from core.data.images.decode import resize
from core.errors import UserError
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.merge import merge_models

# pixels of the longer side of a displayed image
LONGEST_SHOWN = 1024


def heat_maps(model: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Heat maps float32 (B, K, H, W) in [0, 1] of uint8 images (B, 1, H, W) for K class indices.

    The images have the model's size. 1 is the strongest evidence for the class in that image; 0 is
    the weakest for a model with `forward_maps`, and no evidence for Grad-CAM (of the last feature
    map or grid of tokens). A constant map is all 0. Coupled labels: maps of the refined logits. The
    model, in eval mode, is not changed. Raises UserError if it has no feature map or grid, captum
    is missing, or a map is not finite.
    """
    # Grad-CAM needs gradients in any mode of the caller
    with torch.inference_mode(mode=False):
        own_maps: Any = getattr(model, "forward_maps", None)
        if own_maps is not None:
            with torch.no_grad():
                maps = _enlarged(own_maps(images)[:, list(classes)], images.shape[-2:])
            maps = maps - maps.amin((-2, -1), keepdim=True)
        else:
            features = _features(model, images)
            find = _token_cam if features.ndim == 3 else _grad_cam
            maps = _enlarged(find(model, images, classes, features), images.shape[-2:])
        if not maps.isfinite().all():
            raise UserError("the heat maps are not finite")
        highest = maps.amax((-2, -1), keepdim=True)
        return torch.where(highest > 0, maps / highest, 0.0)


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, K, h, w) to `size`, float32."""
    maps = maps.detach().float()
    return functional.interpolate(maps, size=(*size,), mode="bilinear", align_corners=False)


class _Tail(nn.Module):
    """The model after the backbone's feature map: features (B, F, h, w) → logits (B, C)."""

    def __init__(self, model: Any, channels_last: bool) -> None:
        super().__init__()
        # captum hooks this layer, so that the model itself has no hooks
        self.features = nn.Identity()
        self.model, self.channels_last = model, channels_last

    def forward(self, features: Tensor) -> Tensor:
        features = self.features(features)
        if self.channels_last:
            features = features.movedim(1, -1)
        return self.model.head(self.model.backbone.network.forward_head(features))


@torch.no_grad()
def _features(model: Any, images: Tensor) -> Tensor:
    """Features before the pooling: (B, F, h, w), (B, h, w, F), or tokens (B, N, F).

    Raises UserError for any other.
    """
    network = model.backbone.network
    features = network.forward_features(model.backbone.normalised(images))
    if isinstance(features, Tensor):
        width, shape = network.num_features, features.shape
        if (len(shape) == 4 and width in (shape[1], shape[-1])) or len(shape) == 3:
            return features
    raise _no_map(network)


def _no_map(network: nn.Module) -> UserError:
    return UserError(
        f"a {type(network).__name__} has no feature map or grid of tokens, which Grad-CAM needs: "
        "use another backbone, or csra_db_cas, which has its own maps"
    )


def _grad_cam(model: Any, images: Tensor, classes: Sequence[int], features: Tensor) -> Tensor:
    """Maps (B, K, h, w), at least 0: eq. 1 and 2 of Selvaraju et al. 2017."""
    try:
        # optional package, needed for feature maps alone
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise UserError(
            'heat maps of this method need captum: pip install -c constraints.txt -e ".[explain]"'
        ) from error
    channels_last = features.shape[1] != model.backbone.network.num_features
    if channels_last:
        features = features.movedim(-1, 1)
    tail = _Tail(model, channels_last)
    chosen = torch.tensor(list(classes), device=features.device)
    # one copy of each image for each class
    maps = LayerGradCam(tail, tail.features).attribute(
        features.repeat_interleave(len(chosen), dim=0).requires_grad_(),
        target=chosen.repeat(len(features)),
        relu_attributions=True,
    )
    return maps.squeeze(1).unflatten(0, (len(features), len(chosen)))


def _token_cam(model: Any, images: Tensor, classes: Sequence[int], features: Tensor) -> Tensor:
    """Grad-CAM maps (B, K, h, w) of the patch tokens, laid out as the square grid of patches.

    Of the final tokens, or, where the logits depend on the class token alone, of the normalised
    tokens that enter the last attention. Raises UserError if they are not a grid.
    """
    network = model.backbone.network
    with torch.enable_grad():
        tokens = features.detach().requires_grad_()
        logits = model.head(network.forward_head(tokens))
        maps = _weighted_tokens(network, tokens, logits, classes)
        if maps is None:
            tokens, logits = _attended_tokens(model, images)
            maps = _weighted_tokens(network, tokens, logits, classes)
    if maps is None:
        raise _no_map(network)
    return maps


def _attended_tokens(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input of the last attention (B, N, F), and the logits (B, C) as a function of it."""
    network, held = model.backbone.network, []

    def hold(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        held.append(given[0].detach().requires_grad_())
        return (held[-1], *given[1:])

    named = network.named_modules()
    layers = [module for name, module in named if name.rpartition(".")[2] == "attn"]
    if not layers:
        raise _no_map(network)
    hook = layers[-1].register_forward_pre_hook(hold)
    try:
        logits = model(images)
    finally:
        hook.remove()
    if len(held) != 1:
        raise _no_map(network)
    return held[0], logits


def _weighted_tokens(
    network: Any, tokens: Tensor, logits: Tensor, classes: Sequence[int]
) -> Tensor | None:
    """Grad-CAM of `tokens` (B, N, F), (B, K, h, w); None if patch tokens have no gradient.

    Also None if they are not a grid.
    """
    prefix = getattr(network, "num_prefix_tokens", 0)
    side = math.isqrt(max(0, tokens.shape[1] - prefix))
    if tokens.ndim != 3 or side < 2 or side**2 != tokens.shape[1] - prefix:
        return None
    patches, maps, flows = tokens.detach()[:, prefix:], [], False
    for place in classes:
        (gradient,) = torch.autograd.grad(logits[:, place].sum(), tokens, retain_graph=True)
        flows |= bool(gradient[:, prefix:].any())
        weights = gradient[:, prefix:].mean(1, keepdim=True)
        maps.append((patches * weights).sum(-1).relu())
    return torch.stack(maps, 1).unflatten(-1, (side, side)) if flows else None


def member_maps(member: Member, pixels: NDArray[np.uint8], classes: Sequence[int]) -> Tensor:
    """Heat maps (1, K, S, S) of one image, uint8 of any size, at the model's own size S."""
    image = torch.from_numpy(resize(pixels, member.info.image_size))[None, None]
    device = next(member.model.parameters()).device
    try:
        return heat_maps(member.model, image.to(device), classes)
    except UserError as error:
        raise UserError(f"{member.path}: {error}") from error


def ensemble_maps(
    ensemble: Ensemble,
    pixels: NDArray[np.uint8],
    class_names: Sequence[str],
    shape: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Heat maps of one image, uint8 of any size, for K classes by name, resized to `shape` (H, W).

    Returns the maps of each model, (M, K, H, W), NaN if a model lacks a class, and their weighted
    mean, (K, H, W). Raises UserError as `heat_maps` does.
    """
    members = ensemble.members
    found = np.full((len(members), len(class_names), *shape), np.nan, dtype=np.float32)
    for number, member in enumerate(members):
        places, own = member.class_indices(class_names)
        if places:
            maps = _enlarged(member_maps(member, pixels, own), shape)
            found[number, places] = maps[0].cpu().numpy()
    flat = found.reshape(len(members), len(class_names), -1)
    merged = merge_models(flat.astype(np.float64), ensemble.shares, "weighted_mean")
    return found, merged.reshape(found.shape[1:]).astype(np.float32)
