"""Run folder: layout, lock and resume check."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lightning_fabric import Fabric

from core.config.earlier_run import SINCE, EarlierRun, find_run
from core.config.training import RunConfig
from core.data.splits.folds import write_folds
from core.data.splits.prepare import PreparedData
from core.data.tables.labels_csv import LABELS, write_labels
from core.errors import UserError
from core.io.atomic import write_atomically
from core.io.lock import LOCK, is_held, lock_folder
from core.runtime.environment import (
    earlier_starts,
    kept_starts,
    this_start,
    told_changes,
    told_files,
)
from core.runtime.ranks import check_equal

# settings in which the same run may differ from one start to the next
_FREE = {
    *("num_workers", "log_every", "save_minutes", "tensorboard", "run_folds", "preset", "out_dir"),
    # what is predicted after the training is no part of it
    *("test_csv", "test_dir", "out_csv", "ensemble_folds"),
}
# settings that say how to start, and are no part of what a run is
_UNKEPT = {"config", "overwrite"}
# settings in which the machines of one run may differ
_OF_A_NODE = {*_UNKEPT, "num_workers"}
# what a start that was killed at once may leave
_BEFORE_A_RUN = {LOCK, "env.json"}
# pictures of the report, by name
PLOTS = [
    "classes",
    "curves",
    "precision_recall",
    "score_histograms",
    "reliability",
    "co_occurrence",
]
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
    fabric: Fabric,
    config: RunConfig,
    settings: dict[str, Any],
    prepared: PreparedData,
    weights: dict[str, str] | None,
) -> RunFolder:
    """The run folder of `settings` (by flag name), made or taken up on the first rank.

    `weights` is the record of the starting weights. Raises UserError, before anything is written,
    where the folder holds something else, and where the processes were given other settings or see
    other data.
    """
    fingerprint, parts = prepared.fingerprint(), prepared.digests()
    given = {f"--{name}": str(value) for name, value in settings.items() if name not in _OF_A_NODE}
    mend = "give the same command on each machine, and the same files"
    check_equal(fabric, given | parts | {"starting weights": str(weights)}, mend)
    folder = RunFolder(config.out_dir, settings["model"])
    if fabric.is_global_zero:
        data = {
            "data": fingerprint,
            "parts": parts,
            "files": prepared.files,
            "labels": list(prepared.table.class_names),
            "starting_weights": weights,
        }
        for sentence in folder.open(settings, data, overwrite=config.overwrite):
            print(sentence)
        if not folder.labels.is_file():
            write_labels(folder.labels, prepared.table)
        write_folds(folder.folds, prepared.table, prepared.assignment)
    # no process goes ahead of what the first one writes
    folder.identity = fabric.broadcast(folder.identity)
    return folder


def _check_same(earlier: EarlierRun, settings: dict[str, Any], data: dict[str, Any]) -> None:
    """Raise UserError where `settings` or `data` are not those of the earlier run."""
    old = SINCE | earlier.settings
    same_data = earlier.environment.get("data") == data["data"]
    # labels that were detected then may be given by name
    free = _FREE | ({"labels"} if same_data and not old.get("labels") else set())
    if may_be_random(earlier) and not settings["pretrained"]:
        free |= {"pretrained"}
    names = [name for name in {**old, **settings} if old.get(name) != settings.get(name)]
    differing = sorted({*names} - free)
    if differing and "preset" in names:
        differing.insert(0, "preset")
    differing = [f"{name} ({old.get(name)} there, {settings.get(name)} now)" for name in differing]
    remedy, start = "leave what differs out to resume it", ""
    if differing and "model" not in names:
        trained = [files.weights for files in folds_of(earlier) if files.weights.is_file()]
        start = f" and --init_from {trained[0]} to start from its weights" if trained else ""
    if not differing and not same_data:
        parts = earlier.environment.get("parts")
        changed = ["images, labels, patients or folds"]
        if isinstance(parts, dict):
            changed = [name for name, one in data["parts"].items() if parts.get(name) != one]
        differing = [f"the {', '.join(changed) or 'data'} that the same CSV now gives"]
        remedy = (
            "to resume it put the earlier files back, or name its labels by --labels where another "
            "version detected them"
        )
    weights = earlier.environment.get("starting_weights")
    if not differing and weights and weights != data["starting_weights"]:
        differing = ["the file of its starting weights"]
        remedy = "put that file back to resume it"
    if differing:
        raise UserError(
            f"{earlier.path} holds a run that differs in {', '.join(differing)}: {remedy}, or give "
            f"another --out_dir{start} (--overwrite deletes that run)"
        )


def may_be_random(earlier: EarlierRun) -> bool:
    """Whether folds of a run of version 0.1, which trained from random weights where it could not
    fetch pretrained ones and recorded neither, were trained already."""
    settings = earlier.settings
    if earlier.environment.get("starting_weights") or not settings.get("pretrained"):
        return False
    if settings.get("weights_file") or settings.get("init_from"):
        return False
    files = folds_of(earlier)
    return any(path.is_file() for fold in files for path in (fold.state, fold.weights))


def _digest(settings: dict[str, Any], fingerprint: str) -> str:
    kept = {name: value for name, value in settings.items() if name not in _FREE | _UNKEPT}
    # an older run has the same digest
    kept = {name: value for name, value in kept.items() if SINCE.get(name, ()) != value}
    text = json.dumps(kept, sort_keys=True) + fingerprint
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """A folder that holds one run: its settings, records, checkpoints and predictions.

    `open` sets the `identity`, a text that no run of other settings or data shares, from
    config.json: 1 and 1.0 on two command lines are one setting.
    """

    def __init__(self, path: Path, model: str, identity: str = "") -> None:
        self.path = path
        self.model = model
        self.identity = identity
        self.metrics = path / "metrics.csv"
        self.timing = path / "timing.csv"
        self.folds = path / "folds.csv"
        self.labels = path / LABELS
        self.resumed = False
        # as env.json lists them, this one last
        self.starts: list[dict[str, Any]] = []
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

    def open(self, settings: dict[str, Any], data: dict[str, Any], *, overwrite: bool) -> list[str]:
        """Make and lock the folder, or resume the run of the same settings and data in it.

        `settings` by flag name; `data` holds digests of data and folds together ("data"), of their
        "parts" and of the "files", names of the "labels" and the record of the "starting_weights".
        Returns sentences on what changed since the run began. Raises UserError, before anything is
        written, where the folder holds other files, a run of other settings or data (unless
        `overwrite`), or one in progress.
        """
        kept = {name: value for name, value in settings.items() if name not in _UNKEPT}
        earlier = find_run(self.path)
        names = {*os.listdir(self.path)} if self.path.is_dir() else set()
        others = [name for name in names - _BEFORE_A_RUN if not _LEFTOVER.fullmatch(name)]
        if others and earlier is None:
            raise UserError(
                f"--out_dir {self.path} holds files that are no run's: give a new or empty folder"
            )
        if earlier is not None and not overwrite:
            _check_same(earlier, kept, data)
        self._make_and_lock()
        for path in (*self.path.glob(".*"), *self.path.glob("plots/.*")):
            if _LEFTOVER.fullmatch(path.name):
                path.unlink()
        if earlier is not None and overwrite:
            self._clear(earlier)
            earlier = None
        starts = earlier_starts(earlier.environment) if earlier else []
        self.starts = kept_starts([*starts, this_start() | {"files": data["files"]}])
        record = {name: data[name] for name in ("data", "parts", "labels", "starting_weights")}
        self._write_json("env.json", record | {"seed": settings["seed"], "starts": self.starts})
        if earlier is None:
            # last: a folder with config.json is a run's
            self._write_json("config.json", kept)
        self.resumed = earlier is not None
        self.identity = _digest(earlier.settings if earlier else kept, data["data"])
        resumed = f"Resuming the run in {self.path}: what no flag sets is as in its config.json."
        changes = (told_changes(self.starts), told_files(self.starts))
        sentences = (resumed if earlier else "", *changes)
        return [*filter(None, sentences)]

    def check_place(self) -> None:
        """Raise UserError where the folder is not this run's any more: another may be there."""
        if self._lock is not None and not is_held(self.path, self._lock):
            raise UserError(
                f"{self.path} was removed or moved while this run was training in it: nothing more "
                "is written there; the same command starts anew, and one with the --out_dir that "
                "it was moved to goes on"
            )

    def release(self) -> None:
        """Let another run have the folder."""
        if self._lock is not None:
            self._lock.close()

    def _make_and_lock(self) -> None:
        try:
            self._lock = lock_folder(self.path, f"training in {self.path}")
        except OSError as error:
            raise UserError(f"--out_dir {self.path} cannot be used: {error.strerror}") from error

    def _clear(self, run: EarlierRun) -> None:
        """Delete what the earlier run wrote, and nothing else.

        States first, and not config.json and env.json, which are replaced: after a kill in between
        this still is a run's folder, and a fold without a state starts anew.
        """
        folds = folds_of(run)
        paths = [files.state for files in folds]
        for files in folds:
            paths += [files.weights, files.predictions, *files.tensorboard.glob("events.*")]
        paths += [self.metrics, self.timing, self.folds, self.path / "report.html"]
        # a run that is so old has none, and who has one there put it there
        paths += [self.labels] if "labels" in run.environment else []
        paths += [self.path / "plots" / f"{name}.png" for name in PLOTS]
        for path in filter(Path.is_file, paths):
            path.unlink()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text, encoding="utf-8"))


def folds_of(run: EarlierRun) -> list[FoldFiles]:
    """The files of each fold of a run. Raises UserError where its settings name none."""
    model, folds = run.settings.get("model"), run.settings.get("folds", 1)
    # the name of files, which must not lead out of the folder
    is_name = isinstance(model, str) and model == Path(model).name and model not in ("", "..")
    if not is_name or type(folds) is not int or not 1 <= folds <= 1000:
        raise UserError(f"{run.path / 'config.json'} was changed: put it back, or name another run")
    folder = RunFolder(run.path, str(model))
    return [folder.files(fold) for fold in range(1, folds + 1)]
