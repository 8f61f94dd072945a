"""Print and plot the learned couplings: evidence of a label for or against another one.

    python -m methods.label_coupling.couplings outputs/label_coupling/*_fold?.safetensors

Prints the strongest couplings that act on each label, and writes couplings.csv and couplings.png.
A coupling is evidence in addition to that of the image: a coupling of 0 does not mean that two
findings are unrelated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from core.config.command_line import run
from core.errors import UserError
from core.io.atomic import cannot_write, write_atomically
from core.runtime.log import logger
from methods.label_coupling.coupling_matrices import Couplings, align, coupling_table, read_fold

if TYPE_CHECKING:  # imported late for a fast --help
    from pandas import DataFrame


def format_strongest(table: DataFrame, couplings: Couplings, top: int) -> str:
    """Format the `top` strongest couplings that act on each label, one a line.

    `table` is the `coupling_table` of `couplings`.
    """
    from core.report.plots.style import shorten

    width = max(len("acted on by"), *(len(shorten(name)) for name in couplings.class_names))
    line = f"{{:<{width}}}  {{:<{width}}}  {{:>9}}  {{:<7}}  {{}}"
    head = line.format("label", "acted on by", "weight", "effect", "with that sign")
    lines = [
        f"Strongest couplings acting on each label, mean over {couplings.folds_text}.",
        f"Exactly 0 in each of them: {couplings.sparsity}.\n\n{head}\n{'-' * len(head)}",
    ]
    acting = table[table["sign"] != 0].groupby("target", sort=False)
    strongest = {target: rows.head(top).to_dict("records") for target, rows in acting}
    for name in couplings.class_names:
        label = shorten(name)
        if name not in strongest:
            lines.append(f"{label:<{width}}  none")
        for row in strongest.get(name, []):
            effect = "for it" if row["sign"] > 0 else "against"
            folds = f"{row['folds_with_sign']} of {row['folds']} folds"
            weight = f"{row['mean_weight']:+#.3g}"
            lines.append(line.format(label, shorten(row["source"]), weight, effect, folds))
            label = ""
    return "\n".join(lines)


@dataclass(kw_only=True)
class Config:
    """Settings of the couplings command."""

    checkpoints: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="CHECKPOINT...")]
    ]
    """Checkpoints of one run of label_coupling, one a fold."""
    out_dir: Path | None = None
    """Folder of couplings.csv and couplings.png; by default that of the first checkpoint."""
    top: int = 3
    """Number of couplings to print for each label."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Raises UserError for invalid checkpoints or an unwritable folder."""
    config = tyro.cli(Config, args=arguments, description=__doc__, use_underscores=True)
    paths = config.checkpoints
    if not paths:
        raise UserError("No checkpoint is given: give those of a run, one a fold")
    if config.top < 1:
        raise UserError(f"--top is {config.top}: give at least 1")
    folder = paths[0].parent if config.out_dir is None else config.out_dir
    # imported late for a fast --help
    from core.report.plots.style import DOTS_PER_INCH
    from methods.label_coupling.plot_couplings import heat_map

    couplings = align([read_fold(path) for path in paths])
    table, figure = coupling_table(couplings), heat_map(couplings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"--out_dir {folder} is not a folder: {error.strerror}; give a folder"
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    csv, png = folder / "couplings.csv", folder / "couplings.png"
    write_atomically(csv, lambda path: table.to_csv(path, index=False, float_format="%.8g"))
    write_atomically(png, lambda path: figure.savefig(path, dpi=DOTS_PER_INCH))
    logger.info(format_strongest(table, couplings, config.top))
    logger.info(f"\nEvery ordered pair is in {csv}, the heat map in {png}.")


if __name__ == "__main__":
    run(main)
