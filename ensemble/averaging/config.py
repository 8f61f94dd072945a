"""Settings of `python -m ensemble.average`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from core.config.data import LabelReading
from core.config.values import PositiveInt, Seed, Switch, Workers
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class Config:
    """Average the weights of checkpoints."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of one method, network, image size and list of classes, best trained from the
    same start (--init_from, or the same pretrained weights)."""
    way: Literal["uniform", "greedy"] = "uniform"
    """uniform: mean of all; greedy: from the best one, a further one is added if the score on
    held-out images does not fall (Wortsman 2022)."""
    train_csv: Path | None = None
    """CSV of the training, all folds: training images are for batch-norm statistics, held-out
    images, which no checkpoint was trained on, for scores. A network without batch norm needs it
    for greedy only."""
    image_dir: Path = Path("data/images")
    """Folder of the images (searched with its sub-folders), or a pack."""
    reading: LabelReading = field(default_factory=lambda: LabelReading(official_split="train"))
    """Reading of --train_csv."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Score on the held-out images."""
    # batch norm needs two images
    bn_images: Annotated[int, Meta(ge=2)] = 2000
    """Most training images for the batch-norm statistics; they are kept in memory."""
    seed: Seed = 0
    """Seed of the choice of these images."""
    batch_size: PositiveInt = 64
    """Images in a batch."""
    num_workers: Workers = "auto"
    """Processes that decode images; auto: one a core, at most 8."""
    amp: Switch = "auto"
    """Autocast for scores, as in ensemble.infer."""
    output: Path = Path("outputs/average.safetensors")
    """Output checkpoint."""
    overwrite: bool = False
    """Replace an earlier --output."""

    def check(self) -> None:
        """Raise UserError if settings are missing."""
        if len(self.checkpoints) < 2:
            raise UserError("an average needs several checkpoints: give two or more --checkpoints")
        if self.way == "greedy" and self.train_csv is None:
            raise UserError(
                "--way greedy needs held-out images with labels: give the CSV of the training by "
                "--train_csv, or choose --way uniform"
            )
