"""Weights & Biases tracker: one run a fold, and one of all folds, in a group.

The package is an extra: this module is imported only with `--logger wandb`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from requests.utils import get_netrc_auth

from core.trackers.tracker import PROJECT, TrackedRun, Tracker, curve_rows

# seconds that rank 0, and with it all ranks, may wait for the server
PATIENCE = 60


class WandbTracker(Tracker):
    """Run of Weights & Biases that a resume continues, by its id and step.

    Follows WANDB_MODE, WANDB_DIR, WANDB_PROJECT, WANDB_ENTITY; without an API key it is offline.
    No code, console output, git state, packages or host are recorded.
    """

    def __init__(self, run: TrackedRun, fold: int | None) -> None:
        super().__init__(run, fold)
        place = _folder(run.folder)
        self._mode = _mode()
        if self._mode != "disabled":
            # in a run folder that was removed, none is created
            place.mkdir(parents="WANDB_DIR" in os.environ, exist_ok=True)
        settings = wandb.Settings(
            # W&B adds the folder "wandb"
            root_dir=str(place.parent),
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            # texts of no meaning: of an empty one, the package would take the machine's
            host="-",
            program="-",
            program_relpath="-",
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=run.anonymous,
            x_save_requirements=False,
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            silent=True,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=f"{run.name}-{run.id}",
            job_type="fold" if fold else "all folds",
            name=f"{run.name} {self.part}",
            id=self.version,
            resume="allow",
            mode=self._mode,
            # a run of the program around this one remains its own
            reinit="create_new",
            settings=settings,
        )

    @staticmethod
    def places(folder: Path) -> list[Path]:
        """The folder of runs, also of those sent to a server."""
        return [] if _mode() == "disabled" else [_folder(folder)]

    @property
    def place(self) -> str:
        """Address of the run; of an offline run, its folder."""
        if self._run.url:
            return str(self._run.url)
        return f"{self._mode}, in {_folder(self.run.folder)}"

    def settings(self, settings: dict[str, Any]) -> None:
        """Set the run's config."""
        self._run.config.update(settings, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the numbers; the server drops steps that it has."""
        self._run.log(dict(metrics), step=step, commit=True)

    def curves(
        self, step: int, names: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Log one chart of all classes."""
        rows: list[Iterable[Any]] = [*curve_rows(names, targets, probabilities)]
        columns = {"class": "class", "x": "recall", "y": "precision"}
        chart = wandb.plot_table(
            "wandb/area-under-curve/v0",
            wandb.Table([*columns.values()], rows),
            columns,
            {"title": "precision and recall"} | {f"{one}-axis-title": columns[one] for one in "xy"},
        )
        with self._staging():
            self._run.log({"precision_recall": chart}, step=step)

    def picture(self, title: str, pixels: np.ndarray, step: int) -> None:
        """Log a picture."""
        self._run.log({title: wandb.Image(pixels)}, step=step)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        """Log a table."""
        content = wandb.Table([*columns], [[*row] for row in rows])
        with self._staging():
            self._run.log({title: content}, step=step)

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Keep W&B's copies of tables beside the run, and not in the home folder."""
        given = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = given or str(_folder(self.run.folder))
        try:
            yield
        finally:
            if given is None:
                del os.environ["WANDB_DATA_DIR"]

    def finalize(self, status: str) -> None:
        """End the run; one that was stopped counts as failed until it is resumed."""
        self._run.finish(exit_code=0 if status == "success" else 1)


def _folder(folder: Path) -> Path:
    """W&B's folder of the run in `folder`; WANDB_DIR names the folder around it."""
    return Path(os.environ.get("WANDB_DIR") or folder).absolute() / "wandb"


def _mode() -> Any:
    """Mode of W&B's own settings; offline without credentials, for which W&B would ask."""
    if given := os.environ.get("WANDB_MODE"):
        return given
    settings = wandb.setup().settings
    has_key = settings.api_key or settings.identity_token_file or get_netrc_auth(settings.base_url)
    return "offline" if settings.mode == "online" and not has_key else settings.mode
