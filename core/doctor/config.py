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
    """Data flags of a training; any of them enables the check of the data."""

    train_csv: tuple[Path, ...] = ()
    """CSV with one row an image, as for a training; data/train.csv if another data flag is
    given."""

    def __post_init__(self) -> None:
        default = DataConfig()
        if not self.train_csv and asdict(self) != asdict(default) | {"train_csv": ()}:
            self.train_csv = default.train_csv

    def check(self) -> None:
        """Raise UserError as a training does, if there are data to check."""
        if self.train_csv:
            super().check()


@dataclass(kw_only=True, slots=True)
class Config:
    """What to check; without flags this computer and the installed packages."""

    data: DataFlags = field(default_factory=DataFlags)
    config: Path | None = None
    """JSON file of a training (config.json of a run): its settings of data, folds, --num_workers
    and --out_dir are the defaults of these flags."""
    test_csv: Path | None = None
    """CSV of the images to predict: are they in --train_csv too?"""
    test_dir: Path | None = None
    """Folder of the images to predict; --train_dir if only --test_csv is given."""
    folds: Literal["auto"] | Folds = "auto"
    """Number of patient-disjoint folds; auto: 5 with a GPU and 3 on a CPU, as in the presets paper
    and small of standard_head."""
    seed: Seed = SplitConfig().seed
    """Seed of the folds."""
    full: bool = False
    """Decode every image instead of a sample of 200, and search for near-duplicates."""
    num_workers: Workers = "auto"
    """Processes that decode images in a training, and threads here; auto: one a core, at most 8."""
    run: Path | None = None
    """Run folder: is it finished and intact, and how is it resumed?"""
    checkpoint: tuple[Path, ...] = ()
    """Checkpoints: are they valid, and what do they contain?"""
    out_dir: Path = Path("outputs")
    """Folder for a run: is it writable, with enough free space?"""

    def check(self) -> None:
        """Raise UserError if there is no training table to compare the test images with."""
        if self.has_test and not self.data.train_csv:
            raise UserError(
                "--test_csv and --test_dir are compared with --train_csv: give that too"
            )

    @property
    def has_test(self) -> bool:
        """Whether there are images to predict."""
        return bool(self.test_csv or self.test_dir)


def read_settings(path: Path) -> dict[str, Any]:
    """Settings in the --config file of a training that the doctor has too.

    Raises UserError as `load_settings` does, and if there are none.
    """
    known = flat(Config()).keys() - {"config", "full", "run", "checkpoint"}
    settings = {name: value for name, value in load_settings(path).items() if name in known}
    if not settings:
        raise UserError(
            f"--config {path} has no data, folds or --out_dir: give the config.json of a run"
        )
    return settings
