"""The settings of `python -m core.doctor`."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from core.config.data import DataConfig
from core.config.training import check_not_negative
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class DataFlags(DataConfig):
    """The flags of a training that say what it reads: any of them has the data checked."""

    train_csv: tuple[Path, ...] = ()
    """CSV with one row an image, as a training takes it; data/train.csv where another flag of the
    data is given."""
    anonymous: bool = False
    """As a training takes it; nothing is written here, and images are named."""

    def __post_init__(self) -> None:
        usual = DataConfig()
        others = [one.name for one in fields(usual) if one.name != "train_csv"]
        if not self.train_csv and any(
            getattr(self, name) != getattr(usual, name) for name in others
        ):
            self.train_csv = usual.train_csv
        if self.train_csv:
            # slots make a new class, which zero-argument super() would not find
            DataConfig.__post_init__(self)


@dataclass(kw_only=True, slots=True)
class Config:
    """What to look at. Without any flag: this computer and what is installed."""

    data: DataFlags = field(default_factory=DataFlags)
    config: Path | None = None
    """JSON file of a training (a run's config.json): what it says of data, folds and --num_workers
    is taken where no flag says otherwise."""
    test_csv: Path | None = None
    """CSV of the images to predict: are they in --train_csv too?"""
    test_dir: Path | None = None
    """Folder of the images to predict; that of --train_dir where only --test_csv is given."""
    folds: int | None = None
    """Number of patient-disjoint folds; the preset's unless given."""
    seed: int | None = None
    """Seed of the folds; the preset's unless given."""
    full: bool = False
    """Decode every image and not a sample of 200, and look for near-duplicates."""
    num_workers: Literal["auto"] | int = "auto"
    """Processes that decode images in a training, and threads here; auto: one a core, at most 8."""
    run: Path | None = None
    """A run folder: is it finished and whole, and how does it go on?"""
    checkpoint: tuple[Path, ...] = ()
    """Checkpoints: can they be read, and what are they?"""
    method: str = ""
    """Estimate memory and time of training this method (standard_head, csra_db_cas,
    label_coupling); each of the next four flags has standard_head estimated without it."""
    preset: Literal["auto", "paper", "small"] = "auto"
    """With these defaults; auto: paper where there is a GPU, small on a CPU."""
    model: str = ""
    """With this timm model; the preset's unless given."""
    img_size: int | None = None
    """With images of this side, in pixels; the preset's unless given."""
    batch_size: int | None = None
    """With so many images in a batch; the preset's unless given."""
    out_dir: Path = Path("outputs")
    """Where a run would be kept: is there room, and can it be written?"""

    def check(self) -> None:
        """Raise UserError where a setting cannot be, or two contradict each other."""
        if self.num_workers != "auto":
            check_not_negative(self, "num_workers")
        if self.tests and not self.data.train_csv:
            raise UserError(
                "--test_csv and --test_dir are compared with --train_csv: give that too"
            )

    @property
    def tests(self) -> bool:
        """Whether there are images to predict."""
        return self.test_csv is not None or self.test_dir is not None

    @property
    def estimates(self) -> bool:
        """Whether memory and time of a training are asked for."""
        sizes = (self.img_size, self.batch_size)
        named = self.method or self.model or self.preset != "auto"
        return bool(named) or any(size is not None for size in sizes)

    def training(self, preset: Any) -> Any:
        """The Config of a method that is meant: the `preset`'s with what is given here.

        Raises UserError for a size that cannot be.
        """
        config = preset()
        config.loader = replace(config.loader, **self._given("img_size", "batch_size"))
        config.split = replace(config.split, **self._given("folds", "seed"))
        model = {"model": self.model} if self.model else {}
        config.model = replace(config.model, pretrained=False, weights_file=None, **model)
        return config

    def _given(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}
