"""MLflow tracker: one run of all folds, and one a fold nested in it.

The package is an extra: this module is imported only with `--logger mlflow`.
"""

import csv
import io
import os
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from core.trackers.tracker import PROJECT, TrackedRun, Tracker, curve_rows

# most parameters of a request
_BATCH = 100


class MlflowTracker(Tracker):
    """Run of MLflow that a resume continues: it is found by a tag.

    Follows MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME; without the former the runs are in an
    SQLite file in the run folder. No user, host, source or git state is recorded.
    """

    def __init__(self, run: TrackedRun, fold: int | None) -> None:
        super().__init__(run, fold)
        folder = run.folder.absolute() / "mlflow"
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
        artifacts = None
        if not self._uri:
            self._uri = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
            artifacts = (folder / "artifacts").as_uri()
            # no further parents: a run folder that was removed is not created again
            folder.mkdir(exist_ok=True)
        self._client = MlflowClient(self._uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        self._run = self._find_or_create("all_folds", run.name, {})
        if fold:
            parent = {"mlflow.parentRunId": self._run}
            label = f"{run.name} {self.part}"
            self._run = self._find_or_create(self.part, label, parent)
        self._client.update_run(self._run, status="RUNNING")

    def _find_or_create(self, part: str, label: str, tags: dict[str, str]) -> str:
        """Id of the run of a fold or of all folds."""
        own = {"training_id": self.run.id, "part": part}
        known = " and ".join(f"tags.{name} = '{value}'" for name, value in own.items())
        for found in self._client.search_runs([self._experiment], known, max_results=1):
            return str(found.info.run_id)
        made = self._client.create_run(self._experiment, run_name=label, tags=tags | own)
        return str(made.info.run_id)

    @staticmethod
    def places(folder: Path) -> list[Path]:
        """The folder of the SQLite file, if there is one."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri and not uri.startswith("sqlite:"):
            return []
        # of an SQLite file alone; the other packages know no error for it
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401

        return [Path(uri.removeprefix("sqlite:///")).parent if uri else folder / "mlflow"]

    @property
    def place(self) -> str:
        """Address of the server or of the SQLite file."""
        return self._uri

    @cached_property
    def _steps(self) -> set[int]:
        """Steps that earlier starts have logged."""
        return {one.step for one in self._client.get_metric_history(self._run, "mAP")}

    def settings(self, settings: dict[str, Any]) -> None:
        """Log the settings of the first start: MLflow refuses changes."""
        if self._client.get_run(self._run).data.params:
            return
        given = [Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(given), _BATCH):
            self._client.log_batch(self._run, params=given[start : start + _BATCH])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the numbers, unless an earlier start has logged this step."""
        if step in self._steps:
            return
        now = int(time.time() * 1000)
        values = [Metric(name, float(one), now, step or 0) for name, one in metrics.items()]
        self._client.log_batch(self._run, metrics=values)

    def curves(
        self, step: int, names: Sequence[str], targets: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Write precision_recall.csv, of the last epoch."""
        rows = [
            (name, f"{recall:.6g}", f"{precision:.6g}")
            for name, recall, precision in curve_rows(names, targets, probabilities)
        ]
        self.table("precision_recall", ("class", "recall", "precision"), rows, step)

    def picture(self, title: str, pixels: np.ndarray, step: int) -> None:
        """Write a PNG."""
        self._client.log_image(self._run, pixels, artifact_file=f"{_file_name(title)}.png")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        """Write a CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        self._client.log_text(self._run, text.getvalue(), f"{_file_name(title)}.csv")

    def finalize(self, status: str) -> None:
        """End the run; one that was stopped counts as killed until it is resumed."""
        self._client.set_terminated(self._run, "FINISHED" if status == "success" else "KILLED")


def _file_name(title: str) -> str:
    return re.sub(r"\W+", "_", title)
