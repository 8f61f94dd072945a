"""Resizing in the ONNX graph: `core.data.images.decode.resize` for tensors of any size."""

import torch
from torch import Tensor


def resize_in_graph(pixels: Tensor, size: int) -> Tensor:
    """Resize images (B, 1, H, W) of grey levels from 0 to 255 to (B, 1, size, size), float32.

    Like `resize`: by area if no side is shorter than `size`, else bilinear; rounded to integers.
    Area: equal except for ties in rounding. Bilinear: at most one level apart, as OpenCV computes
    in fixed point.
    """
    height, width = pixels.shape[-2:]
    sides = [torch.full((), side, dtype=torch.float64) for side in (height, width)]
    shrinks = torch.minimum(*sides) >= size
    down, across = (
        _weights(count, side, size, shrinks)
        for count, side in zip((height, width), sides, strict=True)
    )
    resized = down @ pixels.float() @ across.T
    # at a ratio of exactly 2 OpenCV sums four pixels as integers
    is_half = (sides[0] == 2 * size) & (sides[1] == 2 * size)
    return torch.where(is_half, (resized + 0.5).floor(), resized.round())


def _weights(count: int, side: Tensor, size: int, shrinks: Tensor) -> Tensor:
    """Weights of `count` input pixels for `size` output pixels, float32 (size, count).

    `side`: count as a tensor. Computed in float64: the edges of thousands of pixels must be exact.
    """
    scale = side / size
    place = torch.arange(size, dtype=torch.float64)[:, None]
    pixel = torch.arange(count, dtype=torch.float64)[None]
    end = torch.minimum((place + 1) * scale, pixel + 1)
    area = (end - torch.maximum(place * scale, pixel)).clamp(min=0) / scale
    centre = torch.minimum(((place + 0.5) * scale - 0.5).clamp(min=0), side - 1)
    linear = (1 - (centre - pixel).abs()).clamp(min=0)
    return torch.where(shrinks, area, linear).float()
