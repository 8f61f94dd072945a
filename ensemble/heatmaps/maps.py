"""Heat maps: CSRA's attention, and Grad-CAM (Selvaraju et al. 2017) by captum."""

from __future__ import annotations

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
    map). A constant map is all 0. Coupled labels: maps of the refined logits. The model, in eval
    mode, is not changed. Raises UserError if it has no feature map, captum is missing, or a map is
    not finite.
    """
    # Grad-CAM needs gradients in any mode of the caller
    with torch.inference_mode(mode=False):
        own_maps: Any = getattr(model, "forward_maps", None)
        if own_maps is not None:
            with torch.no_grad():
                maps = _enlarged(own_maps(images)[:, list(classes)], images.shape[-2:])
            maps = maps - maps.amin((-2, -1), keepdim=True)
        else:
            maps = _enlarged(_grad_cam(model, images, classes), images.shape[-2:])
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


def _grad_cam(model: Any, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w), at least 0: eq. 1 and 2 of Selvaraju et al. 2017."""
    try:
        # optional package, not needed for CSRA's maps
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise UserError(
            'heat maps of this method need captum: pip install -c constraints.txt -e ".[explain]"'
        ) from error
    features, channels_last = _feature_map(model.backbone, images)
    tail = _Tail(model, channels_last)
    chosen = torch.tensor(list(classes), device=features.device)
    # one copy of each image for each class
    maps = LayerGradCam(tail, tail.features).attribute(
        features.repeat_interleave(len(chosen), dim=0).requires_grad_(),
        target=chosen.repeat(len(features)),
        relu_attributions=True,
    )
    return maps.squeeze(1).unflatten(0, (len(features), len(chosen)))


@torch.no_grad()
def _feature_map(backbone: Any, images: Tensor) -> tuple[Tensor, bool]:
    """Feature map before the pooling, (B, F, h, w), and True if its channels are last.

    Raises UserError if there is none, as for a transformer with a class token.
    """
    network = backbone.network
    features = network.forward_features(backbone.normalised(images))
    channels = network.num_features
    if isinstance(features, Tensor) and features.ndim == 4:
        if features.shape[1] == channels:
            return features, False
        if features.shape[-1] == channels:
            return features.movedim(-1, 1), True
    raise UserError(
        f"a {type(network).__name__} has no feature map before its pooling, which Grad-CAM needs: "
        "use a convolutional backbone, or csra_db_cas, which has its own maps"
    )


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
