"""Hold-out split: divide a CSV by patient into one to train on and one to score on.

    python -m core.data.holdout --train_csv all.csv --share .2 --output data
    python methods/standard_head/train.py --train_csv data/train.csv --train_dir images

The two have no patient in common and the same share of each class, like folds. Rows keep their text
and columns. With several CSVs, each gets two files, train_NAME.csv and holdout_NAME.csv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from core.config.command_line import flags, run
from core.config.data import DataConfig, SourcesReading
from core.config.values import Seed
from core.errors import UserError
from core.runtime.log import logger

if TYPE_CHECKING:  # imported late, to keep --help fast
    from core.data.tables.label_table import LabelTable

_OWN_FILES = re.compile(r"(train|holdout)(_.+)?\.csv")
_LONGEST_HEADER = 2**20


@dataclass(kw_only=True, slots=True)
class Config:
    """Split patients off for scoring."""

    train_csv: tuple[Path, ...] = (Path("data/train.csv"),)
    """CSV with one row per image, as for training; several are split together."""
    train_dir: tuple[Path, ...] = ()
    """Image folder or pack, one for each --train_csv. Duplicate images then stay on one side, and
    patients can be read from DICOM headers; optional."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """Share of the patients that is held out."""
    labels: str = ""
    """Label columns to balance; empty: detect them."""
    output: Path = Path("holdout")
    """Output folder of train.csv and holdout.csv."""
    seed: Seed = 42
    """Random seed of the split."""
    overwrite: bool = False
    """Replace the files of an earlier run."""
    reading: SourcesReading = field(default_factory=lambda: SourcesReading(official_split="train"))
    """Reading of the CSVs."""


def main() -> None:
    """Entry point of the command."""
    config = flags(Config(), __doc__)
    data = DataConfig(
        train_csv=config.train_csv,
        train_dir=config.train_dir or (Path("images"),),
        labels=config.labels,
        reading=config.reading,
    )
    data.check()
    # late, to keep --help and flag errors fast
    from core.data.splits.folds import count_table
    from core.data.splits.holdout import divide_holdout
    from core.data.splits.prepare import describe_by_image
    from core.data.tables.load import gather
    from core.io.output_folder import check_folder, write_folder

    inputs = [*config.train_csv, *filter(None, [config.reading.label_map])]

    def check() -> None:
        check_folder(config.output, inputs, _OWN_FILES, "holdout", overwrite=config.overwrite)
        _check_pairs(config.output)

    check()
    table = gather(data, images=bool(config.train_dir))
    held_out = divide_holdout(table, config.share, config.seed, logger.info)
    counts = count_table(table.targets, held_out.astype(int), table.class_names, table.patients)
    written = write_folder(config.output, partial(_write, data, table, held_out.tolist()), check)
    cells = counts.map("{:,}".format).set_axis(["train", "holdout"], axis=1)
    logger.info(f"\n{cells.to_string()}\n")
    if by_image := describe_by_image(table):
        logger.info(f"{by_image.replace('folds', 'split', 1)}\n")
    for csv, (train, holdout, left_out) in zip(config.train_csv, written, strict=True):
        if left_out:
            logger.info(
                f"{left_out:,} rows of {csv} are in neither file: the notes above explain why"
            )
        logger.info(f"train        {config.output / train}")
        logger.info(f"held out     {config.output / holdout}")


def _check_pairs(folder: Path) -> None:
    """Raise UserError if the folder has CSVs that are not pairs of train and hold-out files."""
    headers: dict[str, list[bytes]] = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open("rb") as file:
            headers.setdefault(path.name.removeprefix("train").removeprefix("holdout"), []).append(
                file.readline(_LONGEST_HEADER)
            )
    for end, both in headers.items():
        if len(both) != 2 or both[0] != both[1]:
            raise UserError(
                f"{folder}: train{end} and holdout{end} were not written by one earlier call, so "
                "that --overwrite leaves them alone: name another --output"
            )


def _write(
    data: DataConfig, table: LabelTable, held_out: list[bool], folder: Path
) -> list[tuple[str, str, int]]:
    """Write two files per CSV into `folder`; returns their names and the rows left out."""
    from core.data.csv.columns import find_image_column
    from core.data.holdout.rows import write_rows
    from core.data.sources import read_source_table

    sources = [0] * len(table) if table.sources is None else table.sources.tolist()
    written = []
    for place, csv in enumerate(data.train_csv):
        # with several CSVs, images have the source's name as a prefix
        name = table.source_names[place] if table.source_names else ""
        prefix = f"{name}/" if name else ""
        own = {
            image.removeprefix(prefix): held
            for image, held, source in zip(table.ids, held_out, sources, strict=True)
            if source == place
        }
        reading = data.reading.of_csv(place)
        sheet = read_source_table(csv, reading)
        column = find_image_column(csv, sheet.columns, reading.image_column, sheet.image)
        if sheet.columns[column].path != csv:
            raise UserError(
                f"{csv} has a row per study and no images, so it cannot be split: use the official "
                "test of its split table (--official_split)"
            )
        end = f"_{name}.csv" if name else ".csv"
        train, holdout = f"train{end}", f"holdout{end}"
        rest = write_rows(csv, column, own, folder / train, folder / holdout)
        written.append((train, holdout, rest))
    return written


if __name__ == "__main__":
    run(main)
