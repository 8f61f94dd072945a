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

from core.config.earlier_run import SINCE, EarlierRun, find_run, in_current_terms
from core.config.training import RunConfig
from core.data.splits.folds import write_folds
from core.data.splits.prepare import PreparedData
from core.data.tables.labels_csv import LABELS, write_labels
from core.errors import UserError
from core.io.atomic import write_atomically
from core.io.lock import LOCK, is_held, lock_folder
from core.runs.tracked_files import delete_tracked
from core.runtime.environment import (
    describe_changes,
    describe_file_changes,
    describe_start,
    earlier_starts,
    limit_starts,
)
from core.runtime.log import logger
from core.runtime.ranks import check_equal

# settings that may change between starts of a run
_FREE = {
    *("num_workers", "log_every", "save_minutes", "logger", "tensorboard"),
    *("run_folds", "preset", "out_dir"),
    # prediction after the training
    *("test_csv", "test_dir", "out_csv", "ensemble_folds"),
}
# settings of the command only, not recorded
_NOT_RECORDED = {"config", "overwrite"}
# settings that may differ between the machines of a run
_OF_A_NODE = {*_NOT_RECORDED, "num_workers"}
# files of a start that was killed at once
_BEFORE_A_RUN = {LOCK, "env.json"}
# names of the report's figures
PLOTS = [
    "classes",
    "curves",
    "precision_recall",
    "score_histograms",
    "reliability",
    "co_occurrence",
]
# temporary files after a kill: ours (.name.PID.ending) and those of safetensors
_LEFTOVER = re.compile(r"\..+\.\d+\.(json|csv|html|png|safetensors)|\.tmp\w{6}")


@dataclass(frozen=True)
class FoldFiles:
    """Paths of one fold's files; `fold` counts from 1."""

    fold: int
    weights: Path
    state: Path
    predictions: Path


def open_run(
    fabric: Fabric,
    config: RunConfig,
    settings: dict[str, Any],
    prepared: PreparedData,
    origins: dict[str, Any],
) -> RunFolder:
    """Create or resume the run folder for `settings` (by flag name), on the first rank.

    `origins`: the record of the "starting_weights", and the "precision" if one was chosen. Raises
    UserError, before anything is written, if the folder has other files, or if settings or data
    differ between ranks.
    """
    fingerprint, parts = prepared.fingerprint(), prepared.digests()
    given = {f"--{name}": str(value) for name, value in settings.items() if name not in _OF_A_NODE}
    remedy = "give the same command on each machine, and the same files"
    weights = {"starting weights": str(origins["starting_weights"])}
    check_equal(fabric, given | parts | weights, remedy)
    folder = RunFolder(config.out_dir, settings["model"])
    if fabric.is_global_zero:
        data = {
            "data": fingerprint,
            "parts": parts,
            "files": prepared.files,
            "labels": list(prepared.table.class_names),
            **origins,
        }
        for sentence in folder.open(settings, data, overwrite=config.overwrite):
            logger.info(sentence)
        if not folder.labels.is_file():
            write_labels(folder.labels, prepared.table)
        write_folds(folder.folds, prepared.table, prepared.assignment)
    # also waits until the first rank has written
    folder.identity = fabric.broadcast(folder.identity)
    return folder


def _check_same(earlier: EarlierRun, settings: dict[str, Any], data: dict[str, Any]) -> None:
    """Raise UserError if `settings` or `data` differ from those of the earlier run."""
    since = {name: value for name, value in SINCE.items() if name in settings}
    old = since | in_current_terms(earlier.settings)
    same_data = earlier.environment.get("data") == data["data"]
    # labels that were detected before may now be named
    free = _FREE | ({"labels"} if same_data and not old.get("labels") else set())
    if may_be_random(earlier) and not settings["pretrained"]:
        free |= {"pretrained"}
    names = [name for name in {**old, **settings} if old.get(name) != settings.get(name)]
    differing = sorted({*names} - free)
    if differing and "preset" in names:
        differing.insert(0, "preset")
    differing = [f"{name} ({old.get(name)} there, {settings.get(name)} now)" for name in differing]
    remedy, start = "leave out these flags to resume it", ""
    if differing and "model" not in names:
        trained = [files.weights for files in folds_of(earlier) if files.weights.is_file()]
        saw = "" if old.get("val_csv") else " (which saw images that other folds validate on)"
        start = f" and --init_from {trained[0]} to start from its weights{saw}" if trained else ""
    if not differing and not same_data:
        parts = earlier.environment.get("parts")
        changed = ["images, labels, patients or folds"]
        if isinstance(parts, dict):
            changed = [name for name, one in data["parts"].items() if parts.get(name) != one]
        differing = [f"the {', '.join(changed) or 'data'} of the CSV"]
        remedy = (
            "to resume it restore the earlier files, or name its labels by --labels if another "
            "version detected them"
        )
    weights = earlier.environment.get("starting_weights")
    if not differing and weights and _file_of(weights) != _file_of(data["starting_weights"]):
        differing = ["the file of its starting weights"]
        remedy = "restore that file to resume it"
    if differing:
        raise UserError(
            f"{earlier.path} has a run that differs in {', '.join(differing)}: {remedy}, or give "
            f"another --out_dir{start} (--overwrite deletes that run)"
        )


def _file_of(record: Any) -> Any:
    """The record of starting weights without their name and licence, which older runs lack."""
    names = ("name", "file", "sha256")
    return {name: record.get(name) for name in names} if isinstance(record, dict) else record


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
    hashed = {name: value for name, value in settings.items() if name not in _FREE | _NOT_RECORDED}
    # the same digest as of runs of version 0.1 from before these settings
    hashed = {n: v for n, v in hashed.items() if n not in ("anonymous", "dry_run") or v}
    text = json.dumps(hashed, sort_keys=True) + fingerprint
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunFolder:
    """Folder of one run: settings, records, checkpoints and predictions.

    `open` sets `identity`, a digest of settings and data. It is taken from config.json, so that 1
    and 1.0 on two command lines are equal.
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
        # as in env.json, the current one last
        self.starts: list[dict[str, Any]] = []
        self._lock: IO[str] | None = None

    def files(self, fold: int) -> FoldFiles:
        """Paths of fold `fold` (from 1): best weights, state, predictions."""
        stem = f"{self.model}_fold{fold}"
        return FoldFiles(
            fold,
            self.path / f"{stem}.safetensors",
            self.path / f"{stem}.state.safetensors",
            self.path / f"{stem}_val.csv",
        )

    def open(self, settings: dict[str, Any], data: dict[str, Any], *, overwrite: bool) -> list[str]:
        """Create and lock the folder, or resume its run if settings and data are the same.

        `settings` by flag name. `data`: digests of data and folds together ("data"), of their
        "parts" and of the "files", the "labels" and the origins of `open_run`. Returns sentences on
        changes since the run began. Raises UserError, before anything is written, if
        the folder has other files, a different run (unless `overwrite`) or a run in progress.
        """
        recorded = {name: value for name, value in settings.items() if name not in _NOT_RECORDED}
        # names first: another start may create its run in between
        names = {*os.listdir(self.path)} if self.path.is_dir() else set()
        earlier = find_run(self.path)
        others = [name for name in names - _BEFORE_A_RUN if not _LEFTOVER.fullmatch(name)]
        if others and earlier is None:
            raise UserError(
                f"--out_dir {self.path} has files that are not of a run: give a new or empty folder"
            )
        if earlier is not None and not overwrite:
            _check_same(earlier, recorded, data)
        self._make_and_lock()
        for path in (*self.path.glob(".*"), *self.path.glob("plots/.*")):
            if _LEFTOVER.fullmatch(path.name):
                path.unlink()
        if earlier is not None and overwrite:
            self._clear(earlier)
            earlier = None
        starts = earlier_starts(earlier.environment) if earlier else []
        self.starts = limit_starts([*starts, describe_start() | {"files": data["files"]}])
        record = {name: data[name] for name in data if name != "files"}
        self._write_json("env.json", record | {"seed": settings["seed"], "starts": self.starts})
        if earlier is None:
            # last: config.json marks the folder of a run
            self._write_json("config.json", recorded)
        self.resumed = earlier is not None
        self.identity = _digest(earlier.settings if earlier else recorded, data["data"])
        resumed = (
            f"Resuming the run in {self.path} ({self.model}, {settings.get('img_size')} px): "
            "settings without a flag are from its config.json. Give another --out_dir to begin a "
            "new run."
        )
        changes = (describe_changes(self.starts), describe_file_changes(self.starts))
        sentences = (resumed if earlier else "", *changes)
        return [*filter(None, sentences)]

    def check_place(self) -> None:
        """Raise UserError if the folder was removed, moved or replaced during the run."""
        if self._lock is not None and not is_held(self.path, self._lock):
            raise UserError(
                f"{self.path} was removed or moved during the run, which stops: rerun the command "
                "with the folder's new path as --out_dir to resume, or unchanged to start again"
            )

    def release(self) -> None:
        """Release the lock of the folder."""
        if self._lock is not None:
            self._lock.close()

    def _make_and_lock(self) -> None:
        try:
            self._lock = lock_folder(self.path, f"training in {self.path}")
        except OSError as error:
            raise UserError(f"--out_dir {self.path} cannot be used: {error.strerror}") from error

    def _clear(self, run: EarlierRun) -> None:
        """Delete the files of the earlier run, and nothing else.

        States first. config.json and env.json are replaced later: after a kill in between, this is
        still the folder of a run, and a fold without a state starts again.
        """
        folds = folds_of(run)
        paths = [files.state for files in folds]
        for files in folds:
            paths += [files.weights, files.predictions]
        paths += [self.metrics, self.timing, self.folds, self.path / "report.html"]
        # older runs have no such file; one there is the user's
        paths += [self.labels] if "labels" in run.environment else []
        paths += [self.path / "plots" / f"{name}.png" for name in PLOTS]
        for path in filter(Path.is_file, paths):
            path.unlink()
        delete_tracked(self.path)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text, encoding="utf-8"))


def folds_of(run: EarlierRun) -> list[FoldFiles]:
    """Paths of each fold of a run. Raises UserError if its settings are invalid."""
    model, folds = run.settings.get("model"), run.settings.get("folds", 1)
    # part of file names, which must stay in the folder
    is_name = isinstance(model, str) and model == Path(model).name and model not in ("", "..")
    if not is_name or type(folds) is not int or not 1 <= folds <= 1000:
        raise UserError(f"{run.path / 'config.json'} was changed: restore it, or name another run")
    folder = RunFolder(run.path, str(model))
    return [folder.files(fold) for fold in range(1, folds + 1)]
