"""Images of one grey level everywhere: they can be read, and are hardly radiographs."""

from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.data.loading.dataset import Batch, Batches
from core.errors import UserError, counted, some


class ConstantImages:
    """Which of `images` images are of one grey level, as they pass by in `WatchedBatches`."""

    def __init__(self, images: int) -> None:
        self.found = np.zeros(images, dtype=bool)
        self._told = np.zeros(images, dtype=bool)

    def tell(self, fabric: Fabric, names: list[str]) -> str:
        """A sentence on those of all ranks that were not told before; "" where there is none.

        `names` are those of all images. All ranks call it together.
        """
        found = torch.from_numpy(self.found).to(fabric.device, torch.float32)
        of_all = fabric.all_reduce(found, reduce_op="sum")
        assert isinstance(of_all, Tensor)
        found_anywhere = of_all.cpu().numpy() > 0
        rows = np.flatnonzero(found_anywhere & ~self._told).tolist()
        self._told |= found_anywhere
        return told_constant([names[row] for row in rows]) if rows else ""


def told_constant(names: list[str]) -> str:
    """A sentence on images of one grey level."""
    return (
        f"Warning: {counted(len(names), 'image has', 'images have')} the same grey everywhere, as "
        f"a failed export does ({some(names)}): look at them, and take them out of the CSV if they "
        "are no radiographs."
    )


class WatchedBatches:
    """A loader whose images of one grey level are noted in `seen` as they are read."""

    def __init__(self, loader: Batches, seen: ConstantImages) -> None:
        self._loader, self._seen = loader, seen

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch | UserError]:
        for batch in self._loader:
            if isinstance(batch, Batch) and batch.constant is not None:
                self._seen.found[batch.rows[batch.constant].numpy()] = True
            yield batch
