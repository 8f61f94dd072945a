"""The settings of `python -m ensemble.explain`."""

from dataclasses import dataclass, field
from pathlib import Path

from core.config.values import PositiveInt
from core.errors import UserError
from ensemble.predict.config import ModelsConfig, PostprocessConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """Show where in images the models see what speaks for a class."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    test_csv: Path | None = None
    """Explain the images that this CSV names; else --images, else every image of --image_dir."""
    image_dir: Path = Path("data/images")
    """Folder of the images, searched with its sub-folders."""
    image_column: str = ""
    """Column of --test_csv that names the image; found by its usual names when not given."""
    images: tuple[str, ...] = ()
    """Names of some images of --image_dir."""
    classes: tuple[str, ...] = ()
    """Classes to explain; the --top most probable of each image when not given."""
    top: PositiveInt = 3
    """How many of each image's most probable classes are explained."""
    boxes: Path | None = None
    """CSV of where each lesion is (ImageID, finding, x0, y0, x1, y1 in pixels, the last two just
    outside), such as the phantom's boxes.csv: measures how often a map's highest place lies in one,
    over all of the images."""
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    draw: PositiveInt = 12
    """How many of the images are drawn: the first ones."""
    anonymous: bool = False
    """Write numbers in place of the names of images."""
    output: Path = Path("outputs/maps")
    """Folder of the pictures and tables."""
    overwrite: bool = False
    """Replace --output where an earlier call made it."""

    def check(self) -> None:
        """Raise UserError where two settings contradict each other."""
        self.models.check()
        self.postprocessing.check()
        if self.test_csv is not None and self.images:
            raise UserError("--test_csv and --images both name the images: give one of them")
        if self.image_column and self.test_csv is None:
            raise UserError("--image_column names a column of --test_csv: give that too")
