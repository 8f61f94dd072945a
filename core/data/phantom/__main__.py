"""Draw a chest X-ray dataset with known labels, couplings and lesions.

python -m core.data.phantom data --images 1200 --size 160 --seed 0
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.config.command_line import run


@dataclass(kw_only=True)
class Config:
    """Draw a chest X-ray dataset with known labels, couplings and lesions."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Where to write train.csv, test.csv, test_labels.csv, images, couplings.csv and boxes.csv."""
    images: int = 1200
    """Training images; a quarter as many, at least 50, are added for the test."""
    size: int = 160
    """Pixels a side."""
    seed: int = 0
    """Another seed, other patients."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    config = tyro.cli(Config, args=arguments)
    # late, so that --help is answered at once
    from core.data.phantom.dataset import make_phantom, report

    drawn = make_phantom(config.folder, config.images, config.size, config.seed)
    print(report(config.folder, drawn))


if __name__ == "__main__":
    run(main)
