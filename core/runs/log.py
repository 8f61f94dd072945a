"""Log of a run: rows of metrics and timing, console lines, a progress bar."""

import csv
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from core.errors import UserError, pluralize
from core.io.atomic import cannot_write, write_atomically
from core.io.untrusted_files import check_regular

if TYPE_CHECKING:
    from core.runs.tensorboard import Board


class FoldLog:
    """Records and console of one fold; silent on all ranks but the first.

    metrics.csv takes values that the same run always gives again, timing.csv the others.
    """

    board: "Board | None" = None
    """Where there is one, it is saved with each epoch."""

    def __init__(
        self, metrics: Path, timing: Path, *, title: str, speaks: bool, tensorboard: Path | None
    ) -> None:
        """`tensorboard` is a folder for event files. Raises UserError without that package."""
        self.metrics, self.timing = metrics, timing
        self.title, self.speaks = title, speaks
        self._bar = tqdm(disable=True)
        if tensorboard and speaks:
            try:
                from core.runs.tensorboard import Board
            except ImportError as error:
                raise UserError(
                    "--tensorboard needs a package that is not here: pip install -c "
                    "constraints.txt -e '.[tensorboard]'"
                ) from error
            self.board = Board(tensorboard)

    def start(self, images: int, done: int) -> None:
        """Show a bar over `images`, of which `done` were seen before a resume."""
        # None: a bar on a terminal only
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
        """Advance the bar."""
        self._bar.update(images)

    def loss(self, value: float, skipped: int = 0) -> None:
        """Show the loss beside the bar, and how many updates were skipped where any was."""
        more = {"skipped": skipped} if skipped else {}
        self._bar.set_postfix(loss=f"{value:.4f}", **more, refresh=False)

    def epoch(self, row: dict[str, Any], timing: dict[str, Any], *, of: int, best: bool) -> None:
        """Append one epoch to all files and print its line. Raises UserError for a full disk."""
        if not self.speaks:
            return
        append_row(self.metrics, row)
        append_row(self.timing, timing)
        if self.board is not None:
            self.board.epoch(row["epoch"], row | timing)
        self.say(
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

    def say(self, text: str) -> None:
        """Print a line above the bar, on the first rank only; nothing where it is empty."""
        if self.speaks and text:
            tqdm.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append `row` to a CSV, after a header where the file is new. Raises UserError.

    A file that an older version began keeps its columns: what it has none for is left out.
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
            # one write, so that a kill leaves whole rows
            file.write(text.getvalue())
    except OSError as error:
        raise cannot_write(path, error) from error


def cut_back(path: Path, fold: int, epochs: int) -> None:
    """Drop the rows of `fold` after its first `epochs` epochs, and a last one cut short."""
    if not path.exists():
        return
    try:
        check_regular(path)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): move it away, and the same command resumes without "
            "the rows of earlier epochs"
        ) from error
    # thousands of digits are no number that was written here
    row = re.compile(rf"{fold},(\d{{1,9}}),")
    rows = [(line, row.match(line)) for line in lines if line.endswith("\n")]
    kept = [line for line, own in rows if own is None or int(own[1]) <= epochs]
    if len(kept) < len(lines):
        data = "".join(kept).encode()
        write_atomically(path, lambda temporary: temporary.write_bytes(data))
