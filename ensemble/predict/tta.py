"""Test-time augmentation: named sets of transforms in pixel space, before normalisation."""

import math
from functools import partial

from torch import Tensor
from torch.nn import functional

from core.models.predict import View, identity, mirror


def turn_and_scale(images: Tensor, *, degrees: float = 0.0, scale: float = 1.0) -> Tensor:
    """Rotate float images (B, 1, H, W) counter-clockwise and magnify them about their centre.

    Bilinear, of the same size: the edge is cropped, or filled by reflection.
    """
    angle, height, width = math.radians(degrees), images.shape[-2], images.shape[-1]
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    # source of each pixel, in coordinates that reach from -1 to 1 on either axis
    rows = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    theta = images.new_tensor(rows).expand(images.shape[0], 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def brighten(images: Tensor, *, factor: float) -> Tensor:
    """Multiply float images (B, 1, H, W) in [0, 1] by `factor`; higher results become 1."""
    return (images * factor).clamp(max=1)


def scaled_mirror(images: Tensor, *, scale: float) -> Tensor:
    """Mirror float images (B, 1, H, W) and magnify them by `scale`."""
    return mirror(turn_and_scale(images, scale=scale))


# a mirror swaps the patient's left and right
_FLIP: list[View] = [identity, mirror]
_LIGHT: list[View] = [*_FLIP, *(partial(turn_and_scale, degrees=degrees) for degrees in (5, -5))]
_MEDIUM: list[View] = [*_LIGHT, *(partial(turn_and_scale, scale=scale) for scale in (1.1, 0.9))]

TTA: dict[str, list[View]] = {
    "none": [identity],
    "flip": _FLIP,
    "light": _LIGHT,
    "medium": _MEDIUM,
    "heavy": [*_MEDIUM, *(partial(brighten, factor=factor) for factor in (1.1, 0.9))],
    "flip_scale": [
        *_FLIP,
        *(partial(turn_and_scale, scale=scale) for scale in (1.05, 0.95)),
        *(partial(scaled_mirror, scale=scale) for scale in (1.05, 0.95)),
    ],
}
