"""TensorBoard log of a fold: scalars, precision-recall curves, example images.

The package is an extra: this module is imported only with `--tensorboard`.
"""

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from core.io.atomic import cannot_write


class TensorBoardLog:
    """Event file in `folder`, written with each epoch.

    TensorBoard's writer is not used: its thread reports a full disk late and by a traceback, and
    its file names contain the host.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():010.0f}.run.{os.getpid()}.0"
        self._pending = io.BytesIO()

    def epoch(self, epoch: int, values: dict[str, Any]) -> None:
        """Add the numbers in `values` and write the file. Raises UserError for a full disk."""
        for name, value in values.items():
            if isinstance(value, float):
                self._add(epoch, summary.scalar(name, value))
        self._write()

    def curves(
        self, epoch: int, names: tuple[str, ...], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Add the precision-recall curve of each class with known positives and negatives.

        `targets` (N, C) with NaN for unknown, `probabilities` (N, C).
        """
        for name, truth, scores in zip(names, targets.T, probabilities.T, strict=True):
            known = ~np.isnan(truth)
            if {0, 1} <= set(truth[known]):
                self._add(epoch, summary.pr_curve(name, truth[known], scores[known]))

    def images(self, tag: str, images: np.ndarray) -> None:
        """Add grey images uint8 (N, H, W) side by side."""
        self._add(0, summary.image(tag, images[..., None], dataformats="NHWC"))

    def _add(self, step: int, content: Any) -> None:
        event = Event(wall_time=time.time(), step=step, summary=content)
        RecordWriter(self._pending).write(event.SerializeToString())

    def _write(self) -> None:
        folder = self._path.parent
        try:
            # no further parents: a run folder that was removed is not created again
            for one in (folder.parent, folder):
                one.mkdir(exist_ok=True)
            with self._path.open("ab") as file:
                if not os.fstat(file.fileno()).st_size:
                    first = Event(wall_time=time.time(), file_version="brain.Event:2")
                    RecordWriter(file).write(first.SerializeToString())
                file.write(self._pending.getvalue())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._pending = io.BytesIO()
