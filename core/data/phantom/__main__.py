"""Synthetic chest X-ray dataset with known labels, couplings and lesions.

python -m core.data.phantom data --images 1200 --size 160 --seed 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from core.config.command_line import run
from core.runtime.log import logger


def draw(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    images: int = 1200,
    size: int = 160,
    seed: int = 0,
    rare: float = 1.0,
) -> None:
    """Draw a synthetic chest X-ray dataset with known labels, couplings and lesions.

    Args:
        folder: Output folder: images, train.csv, test.csv, test_labels.csv, couplings.csv,
            boxes.csv.
        images: Training images; a quarter as many, at least 50, are added for the test.
        size: Pixels a side.
        seed: Random seed of the patients.
        rare: Factor, up to 1, of the prevalence of findings below 5 %: 0.33 is a longer tail.
    """
    # late, to keep --help fast
    from core.data.phantom.dataset import make_phantom, report

    logger.info(report(folder, make_phantom(folder, images, size, seed, rare)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    tyro.cli(draw, args=arguments)


if __name__ == "__main__":
    run(main)
