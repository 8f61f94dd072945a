"""TensorBoard tracker: event files in the run folder.

The package is an extra: this module is imported only with `--logger tensorboard`.
"""

import io
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from core.io.atomic import cannot_write
from core.trackers.tracker import TrackedRun, Tracker


class TensorBoardTracker(Tracker):
    """Event file in tensorboard/fold<K>, one for each start, written with each epoch.

    That of all folds is replaced at each start. TensorBoard's writer is not used: its thread
    reports a full disk late and by a traceback, and its file names contain the host.
    """

    def __init__(self, run: TrackedRun, fold: int | None) -> None:
        super().__init__(run, fold)
        folder = run.folder / "tensorboard" / self.part
        start = f"{_start_number(folder):010}.run.{os.getpid()}" if fold else f"{0:010}.run.0"
        self._path = folder / f"events.out.tfevents.{start}.0"
        self._mode = "ab" if fold else "wb"
        self._pending = io.BytesIO()

    @staticmethod
    def places(folder: Path) -> list[Path]:
        """The folder of event files."""
        return [folder / "tensorboard"]

    @property
    def place(self) -> str:
        """The folder of event files."""
        return str(self.run.folder / "tensorboard")

    def settings(self, settings: dict[str, Any]) -> None:
        """Add the settings as a table."""
        rows = [(name, str(value)) for name, value in settings.items()]
        self.table("settings", ("setting", "value"), rows, 0)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add the numbers and write the file. Raises UserError for a full disk."""
        for name, value in metrics.items():
            self._add(step or 0, summary.scalar(name, value))
        self._write()

    def curves(
        self, step: int, names: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Add a curve a class."""
        for name, truth, scores in zip(names, targets.T, probabilities.T, strict=True):
            known = ~np.isnan(truth)
            if {0, 1} <= set(truth[known]):
                self._add(step, summary.pr_curve(name, truth[known], scores[known]))

    def picture(self, title: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        self._add(step, summary.image(title, pixels, dataformats="HWC"[: pixels.ndim]))

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        """Add the table as Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        text = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        self._add(step, summary.text(title, "\n".join(text)))

    def _add(self, step: int, content: Any) -> None:
        event = Event(wall_time=time.time(), step=step, summary=content)
        RecordWriter(self._pending).write(event.SerializeToString())

    def _write(self) -> None:
        folder = self._path.parent
        try:
            # no further parents: a run folder that was removed is not created again
            for one in (folder.parent, folder):
                one.mkdir(exist_ok=True)
            with self._path.open(self._mode) as file:
                if not os.fstat(file.fileno()).st_size:
                    first = Event(wall_time=time.time(), file_version="brain.Event:2")
                    RecordWriter(file).write(first.SerializeToString())
                file.write(self._pending.getvalue())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._mode, self._pending = "ab", io.BytesIO()


def _start_number(folder: Path) -> int:
    """Seconds since 1970, or more if a file of an earlier start would come later by its name.

    TensorBoard reads files in the order of their names, and the clock may have been set back.
    """
    names = [path.name for path in folder.glob("events.out.tfevents.*")]
    found = [re.match(r"events\.out\.tfevents\.(\d{1,10})\.", name) for name in names]
    return max([round(time.time()), *(int(one[1]) + 1 for one in found if one)])
