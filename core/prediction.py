"""Probabilities of a whole set of images, each covered once over all processes."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core.data.dataset import unspoiled


@torch.no_grad()
def predict(
    fabric: Fabric, model: nn.Module, loader: DataLoader, rows: np.ndarray, *, mirror: bool
) -> np.ndarray:
    """Probabilities float32 (len(rows), C) in the order of `rows`, equal on all ranks.

    `model` is in eval mode on the device and not wrapped; `mirror` averages the probabilities of an
    image and of its mirror. Every rank gets the first one's buffers: batch statistics differ.
    Raises UserError for an image that cannot be read.
    """
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    probabilities, seen = [], []
    for batch in unspoiled(loader):
        images = batch.images.to(fabric.device, non_blocking=True)
        with fabric.autocast():
            merged = _probabilities(model, images)
            if mirror:
                merged = (merged + _probabilities(model, images.flip(-1))) / 2
        probabilities.append(merged)
        seen.append(batch.rows)
    gathered = _gather(fabric, torch.cat(probabilities)).cpu().numpy()
    gathered_rows = _gather(fabric, torch.cat(seen).to(fabric.device)).cpu().numpy()
    covered = gathered_rows >= 0
    order = np.argsort(gathered_rows[covered])
    wanted = np.argsort(np.argsort(rows))
    return gathered[covered][order][wanted]


def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return torch.sigmoid(model(images).float())


def _gather(fabric: Fabric, values: Tensor) -> Tensor:
    """All ranks' equally shaped `values`, joined along the first dimension."""
    if fabric.world_size == 1:
        return values
    gathered = fabric.all_gather(values)
    assert isinstance(gathered, Tensor)
    return gathered.flatten(0, 1)
