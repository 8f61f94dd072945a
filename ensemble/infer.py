"""Checkpoints → a CSV of probabilities.

    python -m ensemble.infer --checkpoints a.safetensors b.safetensors --test_csv test.csv \
      --image_dir images --output predictions.csv
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from core.cli import run
from core.config import LoaderConfig
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class Config:
    """Predict images with one model or several."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of any methods; their classes are matched by name."""
    weights: tuple[float, ...] = ()
    """Weight of each checkpoint in the mean of their probabilities; equal unless given."""
    test_csv: Path | None = None
    """Predict the images that this CSV names; else every image of --image_dir."""
    image_dir: Path = Path("data/images")
    """Folder of the images; searched with its sub-folders."""
    image_column: str = ""
    """Column of --test_csv that names the image; found by its usual names when not given."""
    use_tta: bool = True
    """Average over the image and its mirror. A mirror swaps the patient's left and right."""
    batch_size: int = 64
    """Images in a batch, per process."""
    num_workers: Literal["auto"] | int = "auto"
    """Processes that decode images, per process; auto: one a core, at most 8."""
    amp: bool = True
    """bf16 (or fp16) autocast on a GPU; a CPU computes in fp32 whatever is given."""
    output: Path = Path("predictions.csv")
    """Where the probabilities go: the images' names, then one column a class."""


def main() -> None:
    """The command line."""
    config = tyro.cli(Config, description=__doc__, use_underscores=True)
    # late, so that --help and a mistyped flag are answered at once
    from core.runtime import make_fabric, worker_count
    from ensemble.images import check_readable, find_images
    from ensemble.merge import model_shares
    from ensemble.predictions import check_output, class_names, predict_to_csv

    loader = LoaderConfig(batch_size=config.batch_size, num_workers=config.num_workers)
    images = find_images(config.image_dir, config.test_csv, image_column=config.image_column)
    if config.test_csv is not None and config.output.resolve() == config.test_csv.resolve():
        raise UserError(f"--output {config.output} is the --test_csv: name another file")
    names = class_names(config.checkpoints)
    shares = model_shares(config.weights, len(config.checkpoints))
    check_output(config.output, [images.id_column, *names])
    fabric = make_fabric(amp=config.amp)
    check_readable(fabric, images, worker_count(loader.num_workers))
    predict_to_csv(
        fabric,
        config.checkpoints,
        images,
        names,
        config.output,
        shares=shares,
        views="flip" if config.use_tta else "none",
        loader=loader,
    )


if __name__ == "__main__":
    run(main)
