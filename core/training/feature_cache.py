"""Disk-backed feature cache: one anonymous memory-mapped file per rank."""

import os
import shutil
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

# largest fraction of the free space; checkpoints and resume states need some too
SHARE = 0.5
GB = 1e9
# copies from a GPU in flight while the next batches are computed
COPIES = 2


class NoRoomError(Exception):
    """The ranks together need more disk space than they may take."""


class FeatureCache:
    """Cache of `count` rows like those of `like` (B, D), in an anonymous file in `folder`.

    The kernel keeps in memory what fits. The file disappears with this object or the process. All
    ranks create their files together, of `bytes` in total. Raises NoRoomError, on all ranks, if
    the disk is too small.
    """

    def __init__(self, fabric: Fabric, folder: Path, count: int, like: Tensor) -> None:
        self._device, self._type = fabric.device, like.dtype
        shape = (count, like.shape[1] * like.element_size())
        size = shape[0] * shape[1]
        self.bytes = size * fabric.world_size
        # one rank measures, before any allocates
        free = fabric.broadcast(shutil.disk_usage(folder).free)
        no_room = NoRoomError(
            f"would need {self.bytes / GB:.3g} GB in {folder}, where {free / GB:.3g} GB are free "
            "and half may be taken"
        )
        if self.bytes > SHARE * free:
            raise no_room
        mapped = None
        try:
            with tempfile.TemporaryFile(dir=folder, prefix=".") as file:
                # a full disk would kill a process that writes to a mapped file (not on macOS)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                mapped = np.memmap(file, np.uint8, "r+", shape=shape)
        except OSError:
            pass
        made = torch.tensor(float(mapped is not None), device=fabric.device)
        makers = fabric.all_reduce(made, reduce_op="sum")
        assert isinstance(makers, Tensor)
        if mapped is None or makers < fabric.world_size:
            raise no_room
        self._mapped = mapped
        self._under_way: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def write(self, start: int, rows: Tensor) -> None:
        """Store `rows` (B, D) as rows `start` and following, without waiting for the device."""
        self._under_way.append((start, *_to_host(rows)))
        self._store(all_but=COPIES if rows.device.type == "cuda" else 0)

    def read(self, places: np.ndarray) -> Tensor:
        """The rows (B, D) of `places` (B,), on the device."""
        self._store(all_but=0)
        rows = torch.from_numpy(self._mapped[places]).view(self._type)
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self._device, non_blocking=True)

    def _store(self, *, all_but: int) -> None:
        while len(self._under_way) > all_but:
            start, rows, copied = self._under_way.popleft()
            if copied is not None:
                copied.synchronize()
            # NumPy has no bfloat16
            self._mapped[start : start + len(rows)] = rows.view(torch.uint8).numpy()


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy in host memory, and the event that marks its completion."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return host, copied
