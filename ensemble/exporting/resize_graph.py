"""Resizing within a graph: `core.data.images.decode.resize` for tensors of any height and width."""

import torch
from torch import Tensor


def resize_in_graph(pixels: Tensor, size: int) -> Tensor:
    """Images (B, 1, H, W) of grey levels from 0 to 255 as squares (B, 1, size, size), float32.

    By area where no side is shorter than `size`, else bilinear, and rounded to whole levels, as
    `resize` does. Area: equal but for ties of rounding. Bilinear: at most one level apart, as
    OpenCV computes with fixed points.
    """
    height, width = pixels.shape[-2:]
    sides = [torch.full((), side, dtype=torch.float64) for side in (height, width)]
    shrinks = torch.minimum(*sides) >= size
    down, across = (
        _weights(count, side, size, shrinks)
        for count, side in zip((height, width), sides, strict=True)
    )
    resized = down @ pixels.float() @ across.T
    # of exact halves OpenCV adds four levels as integers
    is_half = (sides[0] == 2 * size) & (sides[1] == 2 * size)
    return torch.where(is_half, (resized + 0.5).floor(), resized.round())


def _weights(count: int, side: Tensor, size: int, shrinks: Tensor) -> Tensor:
    """Part of each of `count` pixels (`side` as a tensor) in each of `size`: float32 (size, count).

    Float64 inside: the edges of thousands of pixels have to be exact.
    """
    scale = side / size
    place = torch.arange(size, dtype=torch.float64)[:, None]
    pixel = torch.arange(count, dtype=torch.float64)[None]
    end = torch.minimum((place + 1) * scale, pixel + 1)
    area = (end - torch.maximum(place * scale, pixel)).clamp(min=0) / scale
    centre = torch.minimum(((place + 0.5) * scale - 0.5).clamp(min=0), side - 1)
    linear = (1 - (centre - pixel).abs()).clamp(min=0)
    return torch.where(shrinks, area, linear).float()
