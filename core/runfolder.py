"""The run folder: what is in it, whose it is, and when a command may go on in it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lightning_fabric import Fabric

from core.atomic import LOCK, lock_folder, write_atomically
from core.config import RunConfig
from core.data.prepare import Prepared
from core.data.split import write_folds
from core.errors import UserError
from core.report import HEADINGS
from core.runtime import versions

# settings in which the same run may differ from one start to the next
_FREE = {
    "num_workers",
    "log_every",
    "save_minutes",
    "tensorboard",
    "run_folds",
    "preset",
    "out_dir",
    # what is predicted after the training is no part of it
    *("test_csv", "test_dir", "out_csv", "ensemble_folds"),
}
# settings that say how to start, and are no part of what a run is
_UNKEPT = {"config", "overwrite"}
# what a start that was killed at once may leave
_BEFORE_A_RUN = {LOCK, "env.json"}
# what a kill leaves of a file that was being written: ours (.name.PID.ending), and safetensors' own
_LEFTOVER = re.compile(r"\..+\.\d+\.(json|csv|html|png|safetensors)|\.tmp\w{6}")


@dataclass(frozen=True)
class FoldFiles:
    """The files of one fold, counted from 1."""

    fold: int
    weights: Path
    state: Path
    predictions: Path
    tensorboard: Path


def open_run(
    fabric: Fabric, config: RunConfig, settings: dict[str, Any], prepared: Prepared
) -> RunFolder:
    """The run folder of `settings` (by flag name), made or taken up on the first rank.

    Raises UserError, before anything is written, where the folder holds something else.
    """
    fingerprint = prepared.fingerprint()
    folder = RunFolder(config.out_dir, settings["model"], _digest(settings, fingerprint))
    if fabric.is_global_zero:
        folder.open(settings, fingerprint, overwrite=config.overwrite)
        write_folds(folder.folds, prepared.table, prepared.assignment)
    fabric.barrier()
    return folder


def _digest(settings: dict[str, Any], fingerprint: str) -> str:
    kept = {name: value for name, value in settings.items() if name not in _FREE | _UNKEPT}
    text = json.dumps(kept, sort_keys=True) + fingerprint
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """A folder that holds one run: its settings, records, checkpoints and predictions.

    `identity` is a text that another run, of other settings or data, does not share.
    """

    def __init__(self, path: Path, model: str, identity: str = "") -> None:
        self.path = path
        self.model = model
        self.identity = identity
        self.metrics = path / "metrics.csv"
        self.timing = path / "timing.csv"
        self.folds = path / "folds.csv"
        self._lock: IO[str] | None = None

    def files(self, fold: int) -> FoldFiles:
        """Where fold `fold` (from 1) keeps its best weights, its state and its predictions."""
        stem = f"{self.model}_fold{fold}"
        return FoldFiles(
            fold,
            self.path / f"{stem}.safetensors",
            self.path / f"{stem}.state.safetensors",
            self.path / f"{stem}_val.csv",
            self.path / "tensorboard" / f"fold{fold}",
        )

    def open(self, settings: dict[str, Any], fingerprint: str, *, overwrite: bool) -> None:
        """Make the folder this run's and lock it; a run of the same settings and data goes on.

        `settings` by flag name, `fingerprint` of data and folds. Raises UserError, before anything
        is written, where the folder holds files of another kind, a run of other settings or data
        (unless `overwrite`), or a run that is going on.
        """
        kept = {name: value for name, value in settings.items() if name not in _UNKEPT}
        is_run = self._is_run()
        others = [
            name
            for name in (os.listdir(self.path) if self.path.is_dir() else ())
            if name not in _BEFORE_A_RUN and not _LEFTOVER.fullmatch(name)
        ]
        if others and not is_run:
            raise UserError(
                f"--out_dir {self.path} holds files that are no run's: give a new or empty folder"
            )
        if is_run and not overwrite:
            self._check_same(kept, fingerprint)
        self._make_and_lock()
        for path in (*self.path.glob(".*"), *self.path.glob("plots/.*")):
            if _LEFTOVER.fullmatch(path.name):
                path.unlink()
        if is_run and overwrite:
            self._clear()
        if overwrite or not is_run:
            environment = {
                "command": sys.argv,
                "data": fingerprint,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "versions": versions(),
            }
            self._write_json("env.json", environment)
            # last: a folder with config.json is a run's
            self._write_json("config.json", kept)

    def release(self) -> None:
        """Let another run have the folder."""
        if self._lock is not None:
            self._lock.close()

    def _is_run(self) -> bool:
        """Whether a run of ours has begun here: other programs too write a config.json."""
        files = [self.path / "config.json", self.path / "env.json"]
        if not all(path.is_file() for path in files):
            return False
        return "out_dir" in self._read_json("config.json") and "data" in self._read_json("env.json")

    def _check_same(self, settings: dict[str, Any], fingerprint: str) -> None:
        old = self._read_json("config.json")
        names = sorted((set(old) | set(settings)) - _FREE)
        differing = [
            f"{name} ({old.get(name)} there, {settings.get(name)} now)"
            for name in names
            if old.get(name) != settings.get(name)
        ]
        if not differing and self._read_json("env.json").get("data") != fingerprint:
            differing = ["the images, labels, patients or folds that the same CSV now gives"]
        if differing:
            raise UserError(
                f"{self.path} holds a run that differs in {', '.join(differing)}; give another "
                "--out_dir, or --overwrite to delete that run"
            )

    def _make_and_lock(self) -> None:
        try:
            self._lock = lock_folder(self.path)
        except BlockingIOError as error:
            raise UserError(f"another process is training in {self.path}") from error
        except OSError as error:
            raise UserError(f"--out_dir {self.path} cannot be used: {error.strerror}") from error

    def _clear(self) -> None:
        """Delete what the earlier run wrote, and nothing else.

        States first and config.json last: after a kill in between this still is a run's folder, and
        a fold without a state starts anew.
        """
        old = self._read_json("config.json")
        earlier = RunFolder(self.path, str(old.get("model")))
        count = old.get("folds", 1)
        if earlier.model != Path(earlier.model).name or type(count) is not int:
            raise UserError(f"{self.path / 'config.json'} was changed: give another --out_dir")
        folds = [earlier.files(fold) for fold in range(1, count + 1)]
        paths = [files.state for files in folds]
        for files in folds:
            paths += [files.weights, files.predictions, *files.tensorboard.glob("events.*")]
        paths += [self.metrics, self.timing, self.folds, self.path / "report.html"]
        paths += [self.path / "plots" / f"{name}.png" for name in HEADINGS]
        paths += [self.path / "config.json", self.path / "env.json"]
        for path in paths:
            if path.is_file():
                path.unlink()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text, encoding="utf-8"))

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error}); give another --out_dir") from error
        return content if isinstance(content, dict) else {}
