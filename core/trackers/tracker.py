"""Tracker: base class of the loggers of a training, and what they are given of it."""

from abc import abstractmethod
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric.loggers import Logger
from sklearn.metrics import precision_recall_curve

PROJECT = "longtail-cxr"
# points of a precision-recall curve in a table
CURVE_POINTS = 101


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A training run, as its trackers describe it."""

    folder: Path
    id: str
    """The same at each start of the run."""
    settings: dict[str, Any]
    """By flag name; with --anonymous without folders."""
    anonymous: bool = False

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.absolute().name


class Tracker(Logger):
    """Log of one fold in a tracking tool, or of all folds together (fold None).

    Any method may raise: `Trackers` then drops the tracker.
    """

    def __init__(self, run: TrackedRun, fold: int | None) -> None:
        self.run, self.fold = run, fold

    @staticmethod
    @abstractmethod
    def places(folder: Path) -> list[Path]:
        """Local folders that the tracker of the run in `folder` writes to.

        Raises ImportError if a package is missing.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the user finds the results."""

    @property
    def part(self) -> str:
        """ "fold2", or "all_folds"."""
        return f"fold{self.fold}" if self.fold else "all_folds"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run.name

    @property
    def version(self) -> str:
        """Identity of the fold in the tool."""
        return f"{self.run.id}-{self.part}"

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log the settings."""
        self.settings(params if isinstance(params, dict) else vars(params))

    @abstractmethod
    def settings(self, settings: dict[str, Any]) -> None:
        """Log the settings of the run by flag name."""

    @abstractmethod
    def curves(
        self, step: int, names: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Log the precision-recall curve of each class with known positives and negatives.

        `targets` (N, C) with NaN for unknown, `probabilities` (N, C). Before `log_metrics` of the
        same step.
        """

    @abstractmethod
    def picture(self, title: str, pixels: np.ndarray, step: int) -> None:
        """Log a picture (H, W) or (H, W, 3), uint8; before `log_metrics` of the same step."""

    @abstractmethod
    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        """Log a table of texts; before `log_metrics` of the same step."""


def curve_rows(
    names: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
) -> list[tuple[str, float, float]]:
    """Class, recall and precision of at most `CURVE_POINTS` points a class; see `curves`."""
    rows = []
    for name, truth, scores in zip(names, targets.T, probabilities.T, strict=True):
        known = ~np.isnan(truth)
        if not {0, 1} <= set(truth[known]):
            continue
        precision, recall, _ = precision_recall_curve(
            truth[known], scores[known], drop_intermediate=True
        )
        places = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
        points = zip(recall[places].tolist(), precision[places].tolist(), strict=True)
        rows += [(name, *point) for point in points]
    return rows
