"""Log of a run: rows of metrics and timing, console lines, progress bar."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from core.errors import UserError, pluralize
from core.io.atomic import cannot_write, write_atomically
from core.io.untrusted_files import check_regular
from core.runtime.log import logger
from core.runtime.progress_bar import ProgressBar
from core.trackers.trackers import Trackers


class FoldLog:
    """Metrics, timing and console output of one fold, on the first rank only.

    metrics.csv has the reproducible values, timing.csv the others.
    """

    def __init__(
        self,
        metrics: Path,
        timing: Path,
        *,
        title: str,
        is_main: bool,
        trackers: Trackers | None = None,
    ) -> None:
        """`trackers` also get the numbers of each epoch."""
        self.metrics, self.timing = metrics, timing
        self.trackers = trackers or Trackers()
        self.title, self.is_main = title, is_main
        self._bar = ProgressBar(disable=True)

    def start(self, images: int, done: int) -> None:
        """Show a progress bar over `images`, of which `done` precede a resume."""
        # None: a bar on a terminal only
        self._bar = ProgressBar(
            desc=self.title,
            total=images,
            initial=done,
            unit="img",
            disable=None if self.is_main else True,
            dynamic_ncols=True,
            leave=False,
        )

    def advance(self, images: int) -> None:
        """Advance the bar."""
        self._bar.update(images)

    def loss(self, value: float, skipped: int = 0) -> None:
        """Show the loss, and the number of skipped updates if any, beside the bar."""
        more = {"skipped": skipped} if skipped else {}
        self._bar.set_postfix(loss=f"{value:.4f}", **more, refresh=False)

    def epoch(self, row: dict[str, Any], timing: dict[str, Any], *, of: int, best: bool) -> None:
        """Append an epoch to all logs and print its line. Raises UserError for a full disk."""
        if not self.is_main:
            return
        append_row(self.metrics, row)
        append_row(self.timing, timing)
        numbers = {
            name: float(value)
            for name, value in (row | timing).items()
            if isinstance(value, (int, float)) and name not in ("fold", "epoch")
        }
        self.trackers.each(lambda tracker: tracker.log_metrics(numbers, row["epoch"]))
        logger.info(
            f"{self.title}  epoch {row['epoch']:>2}/{of} {row['phase']:<4} "
            f"loss {row['train_loss']:.4f}  mAP {row['mAP']:.3f}  mAUROC {row['mAUROC']:.3f}  "
            f"{timing['images_per_second']:.0f} images/s  {timing['seconds']:.0f} s"
            + ("  best" if best else "")
            + (
                f"  {pluralize(timing['skipped'], 'update')} skipped"
                if timing.get("skipped")
                else ""
            )
        )

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append `row` to a CSV, with a header if the file is new. Raises UserError.

    A file of an older version keeps its columns; other values are left out.
    """
    text = io.StringIO()
    try:
        with path.open("a+", encoding="utf-8", newline="") as file:
            file.seek(0)
            columns = next(csv.reader(file), [])
            names = columns or list(row)
            writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
            if not columns:
                writer.writeheader()
            writer.writerow(row)
            # a single write, so that a kill leaves complete rows
            file.write(text.getvalue())
    except OSError as error:
        raise cannot_write(path, error) from error


def truncate_log(path: Path, fold: int, epochs: int) -> None:
    """Delete the rows of `fold` after `epochs`, and an incomplete last row. Raises UserError."""
    if not path.exists():
        return
    try:
        check_regular(path)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): move it away, then rerun the command to resume "
            "without the rows of earlier epochs"
        ) from error
    # at most nine digits: a longer number was not written here
    row = re.compile(rf"{fold},(\d{{1,9}}),")
    rows = [(line, row.match(line)) for line in lines if line.endswith("\n")]
    remaining = [line for line, own in rows if own is None or int(own[1]) <= epochs]
    if len(remaining) < len(lines):
        data = "".join(remaining).encode()
        write_atomically(path, lambda temporary: temporary.write_bytes(data))
