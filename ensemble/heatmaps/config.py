"""Settings of `python -m ensemble.explain`."""

from dataclasses import dataclass, field
from pathlib import Path

from core.config.values import PositiveInt, Switch
from core.errors import UserError
from ensemble.predict.config import ModelsConfig, PostprocessConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """Draw heat maps of the evidence for a class."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    test_csv: Path | None = None
    """CSV with the names of the images; by default --images, else every image of --image_dir."""
    image_dir: Path = Path("data/images")
    """Folder of the images, including subfolders."""
    image_column: str = ""
    """Column of --test_csv with the image names; by default found by its usual names."""
    images: tuple[str, ...] = ()
    """Names of images in --image_dir."""
    classes: tuple[str, ...] = ()
    """Classes to explain; by default the --top most probable of each image."""
    top: PositiveInt = 3
    """Number of classes to explain for each image, most probable first."""
    boxes: Path | None = None
    """CSV of lesion boxes (ImageID, finding, x0, y0, x1, y1 in pixels, the last two exclusive),
    such as the phantom's boxes.csv: measures over all images how often the maximum of a map is
    inside a box."""
    postprocessing: PostprocessConfig = field(default_factory=PostprocessConfig)
    draw: PositiveInt = 12
    """Number of images to draw, from the first one."""
    amp: Switch = "auto"
    """Autocast, as in ensemble.infer."""
    anonymous: bool = False
    """Write numbers instead of image names."""
    output: Path = Path("outputs/maps")
    """Folder of the pictures and tables."""
    overwrite: bool = False
    """Replace an earlier --output."""

    def check(self) -> None:
        """Raise UserError if settings contradict each other."""
        self.models.check()
        self.postprocessing.check()
        if self.test_csv is not None and self.images:
            raise UserError("--test_csv and --images both give the images: leave one out")
        if self.image_column and self.test_csv is None:
            raise UserError("--image_column is a column of --test_csv: add --test_csv")
