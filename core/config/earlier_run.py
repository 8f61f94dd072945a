"""Earlier run in a run folder: settings and record of its data."""

import csv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.io.untrusted_files import check_regular, read_json

# settings that older runs lack, with their value there
SINCE: dict[str, Any] = {
    **{"anonymous": False, "dry_run": False, "mean": [], "std": [], "patch_size": None},
    **{"sampler_mix": 0.0, "sampler_cap": None, "head": "mlp", "head_views": 4},
    **{"retrain_epochs": 0, "retrain_sampler": "class_aware", "retrain_lr": 1e-3},
    **{"layer_decay": 1.0, "freeze_backbone": False, "head_phase": "cached"},
    **{"weights_name": None, "soft_labels": False, "logger": []},
}


def in_current_terms(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of any version in today's terms: `amp` was true or false, and true was `auto`."""
    amp = settings.get("amp")
    return settings | {"amp": "auto" if amp else "off"} if isinstance(amp, bool) else settings


@dataclass(frozen=True)
class EarlierRun:
    """A run started in the folder `path`."""

    path: Path
    settings: dict[str, Any]
    """config.json: the settings of the first start, by flag name"""
    environment: dict[str, Any]
    """env.json: digests of the data; versions and command of each start"""

    @property
    def folds(self) -> Path:
        """Path of folds.csv: patient and fold of each image."""
        return self.path / "folds.csv"

    def class_names(self) -> list[str] | None:
        """Class names in env.json or in the predictions; None if neither has them."""
        recorded = self.environment.get("labels")
        if isinstance(recorded, list) and recorded and all(isinstance(n, str) for n in recorded):
            return recorded
        for path in sorted(self.path.glob("*_fold*_val.csv")):
            with suppress(OSError, ValueError, csv.Error):
                check_regular(path)
                with path.open(encoding="utf-8", newline="") as file:
                    names = next(csv.reader(file), [])[1:]
                if names:
                    return names
        return None


def find_run(path: Path) -> EarlierRun | None:
    """The run in the folder `path`; None if there is none of this project.

    Raises UserError if config.json or env.json cannot be read.
    """
    if not all((path / name).is_file() for name in ("config.json", "env.json")):
        return None
    found = EarlierRun(path, _read(path / "config.json"), _read(path / "env.json"))
    # other programs also write a config.json
    return found if "out_dir" in found.settings and "data" in found.environment else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): restore it, or name another folder"
        ) from error
