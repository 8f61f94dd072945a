"""What a run says while it runs: rows of metrics and timing, console lines, a progress bar."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core.atomic import write_atomically
from core.errors import UserError


class FoldLog:
    """Records and console of one fold; silent on all ranks but the first.

    metrics.csv takes values that the same run always gives again, timing.csv the others.
    """

    def __init__(
        self,
        metrics: Path,
        timing: Path,
        *,
        title: str,
        speaks: bool,
        tensorboard: Path | None = None,
    ) -> None:
        """`tensorboard` is a folder for its event files. Raises UserError where it is missing."""
        self.metrics, self.timing = metrics, timing
        self.title, self.speaks = title, speaks
        self._bar: tqdm | None = None
        self._board = _board(tensorboard) if tensorboard and speaks else None

    def start(self, images: int, done: int) -> None:
        """Show a bar over `images`, of which `done` were seen before a resume."""
        # None: no bar where the output is no terminal
        self._bar = tqdm(
            desc=self.title,
            total=images,
            initial=done,
            unit="img",
            disable=None if self.speaks else True,
            dynamic_ncols=True,
            leave=False,
        )

    def advance(self, images: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(images)

    def loss(self, value: float) -> None:
        """Show the loss beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{value:.4f}", refresh=False)

    def epoch(self, row: dict[str, Any], timing: dict[str, Any], *, of: int, best: bool) -> None:
        """Append one epoch to both files and print its line."""
        if not self.speaks:
            return
        append_row(self.metrics, row)
        append_row(self.timing, timing)
        if self._board is not None:
            for name, value in (row | timing).items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, row["epoch"])
        self.say(
            f"{self.title}  epoch {row['epoch']:>2}/{of} {row['phase']:<4} "
            f"loss {row['train_loss']:.4f}  mAP {row['mAP']:.3f}  mAUROC {row['mAUROC']:.3f}  "
            f"{timing['images_per_second']:.0f} images/s  {timing['seconds']:.0f} s"
            + ("  best" if best else "")
        )

    def say(self, text: str) -> None:
        """Print a line above the bar, on the first rank only; nothing where it is empty."""
        if self.speaks and text:
            tqdm.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs a package that is not here: pip install -e '.[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append `row` to a CSV, after a header where the file is new. Raises UserError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
    if not path.exists() or not path.stat().st_size:
        writer.writeheader()
    writer.writerow(row)
    try:
        # one write, so that a kill leaves whole rows
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def cut_back(path: Path, fold: int, epochs: int) -> None:
    """Drop the rows of `fold` after its first `epochs` epochs: a resumed run writes them again.

    A last row that a full disk cut short goes too.
    """
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); --overwrite trains anew") from error
    kept = [line for line in lines if line.endswith("\n") and not _is_later(line, fold, epochs)]
    if len(kept) < len(lines):
        write_atomically(path, lambda temporary: temporary.write_text("".join(kept)))


def _is_later(line: str, fold: int, epochs: int) -> bool:
    row_fold, epoch, *_ = [*line.split(",", 2), ""]
    return row_fold == str(fold) and epoch.isdigit() and int(epoch) > epochs
