"""Settings of `python -m core.doctor`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.config.data import DataConfig
from core.config.settings_file import load_settings
from core.config.training import SplitConfig
from core.config.values import Folds, Seed, Workers, flat
from core.errors import UserError


@dataclass(kw_only=True)
class DataFlags(DataConfig):
    """A training's flags of data: any of them has the data checked."""

    train_csv: tuple[Path, ...] = ()
    """CSV with one row an image, as a training takes it; data/train.csv where another flag of the
    data is given."""

    def __post_init__(self) -> None:
        default = DataConfig()
        if not self.train_csv and asdict(self) != asdict(default) | {"train_csv": ()}:
            self.train_csv = default.train_csv

    def check(self) -> None:
        """Raise UserError as a training does, where there is data."""
        if self.train_csv:
            super().check()


@dataclass(kw_only=True, slots=True)
class Config:
    """What to check. Without any flag: this computer and what is installed."""

    data: DataFlags = field(default_factory=DataFlags)
    config: Path | None = None
    """JSON file of a training (a run's config.json): its settings of data, folds, --num_workers and
    --out_dir are taken where no flag says otherwise."""
    test_csv: Path | None = None
    """CSV of the images to predict: are they in --train_csv too?"""
    test_dir: Path | None = None
    """Folder of the images to predict; that of --train_dir where only --test_csv is given."""
    folds: Literal["auto"] | Folds = "auto"
    """Number of patient-disjoint folds; auto: 5 where there is a GPU and 3 on a CPU, as the presets
    paper and small of standard_head have them."""
    seed: Seed = SplitConfig().seed
    """Seed of the folds."""
    full: bool = False
    """Decode every image and not a sample of 200, and look for near-duplicates."""
    num_workers: Workers = "auto"
    """Processes that decode images in a training, and threads here; auto: one a core, at most 8."""
    run: Path | None = None
    """A run folder: is it finished and whole, and how is it resumed?"""
    checkpoint: tuple[Path, ...] = ()
    """Checkpoints: can they be read, and what are they?"""
    out_dir: Path = Path("outputs")
    """Where a run would be kept: is there room, and can it be written?"""

    def check(self) -> None:
        """Raise UserError where there is nothing to compare the test's images with."""
        if self.tests and not self.data.train_csv:
            raise UserError(
                "--test_csv and --test_dir are compared with --train_csv: give that too"
            )

    @property
    def tests(self) -> bool:
        """Whether there are images to predict."""
        return bool(self.test_csv or self.test_dir)


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a training's --config file that the doctor has too; others are left out.

    Raises UserError as `load_settings` does, and where there is none of these.
    """
    known = flat(Config()).keys() - {"config", "full", "run", "checkpoint"}
    taken = {name: value for name, value in load_settings(path).items() if name in known}
    if not taken:
        raise UserError(
            f"--config {path} names no data, folds or --out_dir: give the config.json of a run"
        )
    return taken
