"""What TensorBoard shows of a fold: scalars, precision-recall curves, example images.

The package is an extra: this file is imported where `--tensorboard` is given.
"""

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

from core.io.atomic import cannot_write


class Board(TensorBoardLogger):
    """Fabric's logger for the event files in `folder`. Nothing is on the disk before `save`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name="", version=folder.name)
        self._writer = _Writer(str(folder))

    @property
    def experiment(self) -> SummaryWriter:
        """TensorBoard's writer."""
        return self._writer

    def epoch(self, epoch: int, values: dict[str, Any]) -> None:
        """Add the numbers among `values`, and save. Raises UserError for a full disk."""
        numbers = {name: one for name, one in values.items() if isinstance(one, float)}
        self.log_metrics(numbers, epoch)
        self.save()

    def curves(
        self, epoch: int, names: tuple[str, ...], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Add the precision-recall curve of each class that has both kinds among its known labels.

        `targets` (N, C) with NaN for unknown, `probabilities` (N, C).
        """
        for name, truth, scores in zip(names, targets.T, probabilities.T, strict=True):
            known = ~np.isnan(truth)
            if {0, 1} <= set(truth[known]):
                self.experiment.add_pr_curve(name, truth[known], scores[known], epoch)

    def images(self, tag: str, images: np.ndarray) -> None:
        """Add grey images uint8 (N, H, W) side by side."""
        self.experiment.add_images(tag, images[..., None], 0, dataformats="NHWC")


class _Writer(SummaryWriter):
    """TensorBoard's writer, with a file of ours behind it."""

    file_writer: FileWriter | None  # type: ignore[assignment]
    all_writers: dict[str, FileWriter] | None  # type: ignore[assignment]

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _FileWriter(self.log_dir)
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer


class _FileWriter(FileWriter):
    def __init__(self, folder: str) -> None:
        self.event_writer = _EventFile(Path(folder))


class _EventFile:
    """An event file as TensorBoard lays it out, which is written at `flush` alone.

    TensorBoard's own has a thread, which tells of a full disk in tracebacks, and later; and its
    name tells the machine's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():010.0f}.run.{os.getpid()}.0"
        self._held = io.BytesIO()

    def get_logdir(self) -> str:
        """Its folder."""
        return str(self._path.parent)

    def add_event(self, event: Event) -> None:
        """Hold it until `flush`."""
        RecordWriter(self._held).write(event.SerializeToString())

    def flush(self) -> None:
        """Append what is held. Raises UserError where that cannot be."""
        if not self._held.tell():
            return
        held, self._held = self._held.getvalue(), io.BytesIO()
        folder = self._path.parent
        try:
            # not those above: a run folder that was removed stays so
            for one in (folder.parent, folder):
                one.mkdir(exist_ok=True)
            with self._path.open("ab") as file:
                if not file.tell():
                    first = Event(wall_time=time.time(), file_version="brain.Event:2")
                    RecordWriter(file).write(first.SerializeToString())
                file.write(held)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Nothing is open between two `flush`."""
