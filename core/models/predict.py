"""Prediction over a set of images, distributed over the ranks."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from core.data.loading.dataset import Batches
from core.runtime.progress_bar import ProgressBar

View = Callable[[Tensor], Tensor]


def identity(images: Tensor) -> Tensor:
    """Images, of any shape, without change."""
    return images


def mirror(images: Tensor) -> Tensor:
    """Images (..., W) with left and right exchanged."""
    return images.flip(-1)


def validation_views(mirrors: bool) -> tuple[View, ...]:
    """Augmented copies for the mean validation probabilities (`--tta`)."""
    return (identity, mirror) if mirrors else (identity,)


def predict(
    fabric: Fabric,
    model: nn.Module,
    loader: Batches,
    rows: np.ndarray,
    *,
    views: Sequence[View],
    title: str = "",
) -> np.ndarray:
    """Probabilities float32 (N, C), averaged over the augmented copies `views`.

    `loader`, `rows` (N,), `title` and errors as in `collect`.
    """

    def probabilities(images: Tensor) -> Tensor:
        return mean_probability(model(view(images)) for view in views)

    broadcast_buffers(fabric, model)
    return collect(fabric, probabilities, loader, rows, title=title)


def mean_probability(logits: Iterable[Tensor]) -> Tensor:
    """Mean probabilities (B, C), float32, of the `logits` (B, C) of several augmented copies."""
    copies = [torch.sigmoid(copy.float()) for copy in logits]
    return reduce(torch.add, copies) / len(copies)


def broadcast_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Broadcast the buffers of the first rank: batch statistics differ."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


@torch.no_grad()
def collect(
    fabric: Fabric,
    outputs: Callable[[Tensor], Tensor],
    loader: Batches,
    rows: np.ndarray,
    *,
    title: str = "",
) -> np.ndarray:
    """Gather `outputs(images (B, 1, H, W))` over a loader: float32 (N, C) on all ranks.

    The order is that of `rows`, which `loader` covers. The model in `outputs` must be in eval mode,
    on the device and not wrapped. A `title` shows a progress bar. Raises UserError for an
    unreadable image.
    """
    results, seen = [], []
    shown = bool(title) and fabric.is_global_zero
    for batch in ProgressBar(loader, desc=title, disable=None if shown else True):
        with fabric.autocast():
            results.append(outputs(batch.images.to(fabric.device, non_blocking=True)).float())
        seen.append(batch.rows)
    return restore_order(fabric, results, seen, rows)


def restore_order(
    fabric: Fabric, results: list[Tensor], seen: list[Tensor], rows: np.ndarray
) -> np.ndarray:
    """Gather batches of `results` (B, C) from all ranks, without padding, in the order of `rows`.

    `seen`: table rows (B,) of each batch of this rank, -1 for padding.
    """
    gathered = _gather(fabric, torch.cat(results)).cpu().numpy()
    gathered_rows = _gather(fabric, torch.cat(seen).to(fabric.device)).cpu().numpy()
    covered = gathered_rows >= 0
    order = np.argsort(gathered_rows[covered])
    return gathered[covered][order][np.argsort(np.argsort(rows))]


def _gather(fabric: Fabric, values: Tensor) -> Tensor:
    """Concatenate the equally shaped `values` of all ranks along the first dimension."""
    if fabric.world_size == 1:
        return values
    gathered = fabric.all_gather(values)
    assert isinstance(gathered, Tensor)
    return gathered.flatten(0, 1)
