"""Trackers named by --logger: check before a run, and calls that never end a training."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.errors import UserError
from core.runtime.log import logger
from core.trackers.tracker import TrackedRun, Tracker

# the packages send nothing about themselves, print nothing, and give up on a server in a minute
_QUIET = {
    **{"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"},
    **{"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"},
    **{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"},
}
_LONGEST_ERROR = 300


def check_trackers(names: Sequence[str], folder: Path) -> None:
    """Raise UserError if a tracker's package is missing, or if it cannot write its local folder.

    `folder`: the run folder, which need not exist.
    """
    for name in names:
        try:
            places = _load(name).places(folder)
        except ImportError as error:
            package = (error.name or name).partition(".")[0]
            raise UserError(
                f"--logger {name} needs a missing package ({package}): pip install "
                f"-c constraints.txt -e '.[{name}]'"
            ) from error
        for place in places:
            if reason := _obstacle(place.absolute(), folder.absolute()):
                raise UserError(
                    f"--logger {name} cannot write to {place}: {reason}; leave out {name}, or "
                    "choose another folder"
                )


def _load(name: str) -> type[Tracker]:
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    # late: each needs a package of its own
    if name == "tensorboard":
        from core.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker
    if name == "wandb":
        from core.trackers.wandb import WandbTracker

        return WandbTracker
    from core.trackers.mlflow import MlflowTracker

    return MlflowTracker


def _obstacle(place: Path, run: Path) -> str:
    """Why the folder `place` cannot be created or written, or ""; `run`: the run folder."""
    existing = next(one for one in (place, *place.parents) if os.path.lexists(one))
    if run.is_relative_to(existing):
        # that the run folder can be written is checked before it is created
        return ""
    if not existing.is_dir():
        return f"{existing} is not a folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} is not writable"


class Trackers:
    """Trackers of a run, on the first rank: of one fold at a time, or of all folds together.

    One that fails prints a warning and is off for the rest of the command.
    """

    def __init__(self, names: Sequence[str] = (), run: TrackedRun | None = None) -> None:
        """`run` is needed with names only. Raises ImportError as `check_trackers` would."""
        self._classes = {name: _load(name) for name in names}
        self._run = run
        self._open: dict[str, Tracker] = {}
        self._announced: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._classes)

    def begin(self, fold: int | None) -> None:
        """Create or continue the log of `fold` (from 1), or of all folds together."""
        for name, create in [*self._classes.items()]:
            with self._off_if_it_fails(name):
                assert self._run is not None
                tracker = self._open[name] = create(self._run, fold)
                tracker.log_hyperparams(self._run.settings)
                if name not in self._announced:
                    logger.info(f"--logger {name}: {tracker.place}")
                    self._announced.add(name)

    def each(self, log: Callable[[Tracker], None]) -> None:
        """Call `log` with each open tracker."""
        for name, tracker in [*self._open.items()]:
            with self._off_if_it_fails(name):
                log(tracker)

    def end(self, *, finished: bool) -> None:
        """Close what `begin` opened; `finished`: False if it was stopped or failed."""
        status = "success" if finished else "aborted"
        self.each(lambda tracker: tracker.finalize(status))
        self._open.clear()

    @contextmanager
    def _off_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._classes.pop(name, None)
            self._open.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
            logger.info(
                f"Warning: --logger {name} failed and is off until the next start, the training "
                f"continues: {reason}"
            )
