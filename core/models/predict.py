"""Outputs of a model for a whole set of images, each covered once over all processes."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from core.data.loading.dataset import Batches

View = Callable[[Tensor], Tensor]


def as_it_is(images: Tensor) -> Tensor:
    """The images themselves."""
    return images


def mirror(images: Tensor) -> Tensor:
    """Images (..., W) with left and right exchanged."""
    return images.flip(-1)


def validation_views(mirrors: bool) -> tuple[View, ...]:
    """Augmented copies over which probabilities of a validation are averaged (`--tta`)."""
    return (as_it_is, mirror) if mirrors else (as_it_is,)


def predict(
    fabric: Fabric,
    model: nn.Module,
    loader: Batches,
    rows: np.ndarray,
    *,
    views: Sequence[View],
    title: str = "",
) -> np.ndarray:
    """Probabilities float32 (len(rows), C), averaged over the `views`, as `collect` orders them."""

    def probabilities(images: Tensor) -> Tensor:
        return mean_probability(model(view(images)) for view in views)

    share_buffers(fabric, model)
    return collect(fabric, probabilities, loader, rows, title=title)


def mean_probability(logits: Iterable[Tensor]) -> Tensor:
    """Probabilities (B, C), float32, averaged over the `logits` (B, C) of several views."""
    views = [torch.sigmoid(view.float()) for view in logits]
    return reduce(torch.add, views) / len(views)


def share_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Give every rank the first one's buffers: batch statistics differ."""
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
    """`outputs` (of images (B, 1, H, W)) in the order of `rows`, float32 (N, C), on all ranks.

    `loader` covers the rows. The model behind `outputs` is in eval mode, on the device and not
    wrapped. A `title` shows a progress bar. Raises UserError for an image that cannot be read.
    """
    results, seen = [], []
    shown = bool(title) and fabric.is_global_zero
    for batch in tqdm(loader, desc=title, disable=None if shown else True):
        with fabric.autocast():
            results.append(outputs(batch.images.to(fabric.device, non_blocking=True)).float())
        seen.append(batch.rows)
    return in_order(fabric, results, seen, rows)


def in_order(
    fabric: Fabric, results: list[Tensor], seen: list[Tensor], rows: np.ndarray
) -> np.ndarray:
    """All ranks' batches of `results` (B, C) joined, without padding, in the order of `rows`.

    `seen`: the table rows (B,) of each batch of this rank, -1 for padding.
    """
    gathered = _gather(fabric, torch.cat(results)).cpu().numpy()
    gathered_rows = _gather(fabric, torch.cat(seen).to(fabric.device)).cpu().numpy()
    covered = gathered_rows >= 0
    order = np.argsort(gathered_rows[covered])
    return gathered[covered][order][np.argsort(np.argsort(rows))]


def _gather(fabric: Fabric, values: Tensor) -> Tensor:
    """All ranks' equally shaped `values`, joined along the first dimension."""
    if fabric.world_size == 1:
        return values
    gathered = fabric.all_gather(values)
    assert isinstance(gathered, Tensor)
    return gathered.flatten(0, 1)
