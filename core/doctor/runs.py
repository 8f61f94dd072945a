"""A run folder: what is finished, is it whole, and how does it go on."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.doctor.checkpoints import check_checkpoint
from core.doctor.findings import Findings
from core.errors import UserError, counted, nearest, some
from core.io.lock import is_locked
from core.io.untrusted_files import read_json
from core.models.checkpoint import load_tensors
from core.runs.folder import FoldFiles, RunFolder
from core.runs.prediction_files import Predictions, read_predictions
from core.runtime.environment import earlier_starts, this_start, told_changes


@dataclass(frozen=True)
class Kept:
    """What the JSON files of a run say."""

    folder: RunFolder
    settings: dict[str, Any]
    starts: list[dict[str, Any]]

    @property
    def folds(self) -> list[FoldFiles]:
        """The files of each fold that the run trains."""
        count = 1 if self.settings.get("val_csv") else self.settings["folds"]
        every = [self.folder.files(fold) for fold in range(1, count + 1)]
        # a later start may have asked for others
        asked = self.settings.get("run_folds") or range(1, count + 1)
        return [files for files in every if files.fold in asked or files.state.exists()]

    @property
    def command(self) -> str:
        """The command of the last start."""
        words = self.starts[-1].get("command") if self.starts else None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return "the same command"
        return shlex.join(["python", *words])


def check_run(find: Findings, path: Path) -> None:
    """Look at all that a run keeps."""
    kept = find.look("settings", _check_settings, path)
    if kept is None:
        find.unseen("folds, checkpoints and predictions need a config.json that can be read")
        return
    finished = find.look("folds", _check_folds, kept) or {}
    classes: dict[int, tuple[str, ...]] = {}
    for fold in finished:
        files = kept.folder.files(fold)
        if names := find.look(f"weights of fold {fold}", check_checkpoint, files.weights):
            classes[fold] = names
    if finished:
        find.look("predictions", _check_predictions, kept, list(finished), classes)
        find.look("metrics.csv", _check_metrics, kept, finished)


def _check_settings(find: Findings, path: Path) -> Kept:
    if not path.is_dir():
        above = path.absolute().parent
        beside = [one.name for one in above.glob("*/")][:1000]
        raise UserError(f"there is no folder {path.name} in {above}{nearest(path.name, beside)}")
    settings, told = (_read(path / name) for name in ("config.json", "env.json"))
    model, folds = settings.get("model"), settings.get("folds")
    asked = settings.get("run_folds") or []
    named = isinstance(model, str) and model == Path(model).name and model not in ("", ".", "..")
    counts = type(folds) is int and 1 <= folds <= 1000 and isinstance(asked, list)
    if not named or not counts or not all(type(fold) is int for fold in asked):
        raise UserError(
            f"{path / 'config.json'} is none of a run's, or was changed: name a run folder"
        )
    starts = earlier_starts(told)
    began = starts[0].get("time") if starts else None
    about = f"begun {began[:16]}" if isinstance(began, str) else "of an earlier version"
    find.good(f"{path}: a run of {model}, {about}, {counted(len(starts), 'start')}")
    return Kept(RunFolder(path, str(model)), settings, starts)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{path} cannot be read ({reason}): name the folder of a run, which holds it"
        ) from error


def _check_folds(find: Findings, kept: Kept) -> dict[int, int]:
    """The finished folds with their number of epochs."""
    finished: dict[int, int] = {}
    under_way = []
    for files in kept.folds:
        if not files.state.exists():
            under_way.append(f"fold {files.fold} has not saved anything yet")
            continue
        try:
            progress = load_tensors(files.state)[1].get("progress")
        except UserError as error:
            find.bad(str(error))
            continue
        told = progress if isinstance(progress, dict) else {}
        if told.get("finished") is True:
            finished[files.fold] = told["epoch"] if type(told.get("epoch")) is int else 0
        else:
            under_way.append(
                f"fold {files.fold} stopped in epoch {told.get('epoch', 0) + 1}, update "
                f"{told.get('update', 0)}"
                if all(type(told.get(name, 0)) is int for name in ("epoch", "update"))
                else f"fold {files.fold} does not say how far it is"
            )
    if finished:
        numbers = ", ".join(map(str, finished))
        find.good(f"{counted(len(finished), 'fold')} trained to the end: {numbers}")
    if under_way and is_locked(kept.folder.path):
        find.doubt(f"{some(under_way, 5)}: a process is training here now")
    elif under_way:
        find.bad(
            some(under_way, 5), f"the same command goes on; the last start was `{kept.command}`"
        )
        if changes := told_changes([*kept.starts[:1], this_start()]):
            find.doubt(changes)
    elif len(finished) == len(kept.folds) and not (kept.folder.path / "report.html").is_file():
        find.bad(
            "every fold is trained, and there is no report.html",
            f"the same command writes it; the last start was `{kept.command}`",
        )
    return finished


def _check_predictions(
    find: Findings, kept: Kept, finished: list[int], classes: dict[int, tuple[str, ...]]
) -> None:
    """Each finished fold has predicted each of its images, with its checkpoint's classes."""
    try:
        folds = pd.read_csv(kept.folder.folds, dtype=str, keep_default_na=False)
        owner = dict(zip(folds["ImageID"], folds["fold"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{kept.folder.folds} cannot be read ({error}): the same command writes it anew"
        ) from error
    total, whole = 0, True
    for fold in finished:
        files = kept.folder.files(fold)
        predictions = find.look(f"predictions of fold {fold}", _read_predictions, files.predictions)
        if predictions is None:
            whole = False
            continue
        total += len(predictions.ids)
        expected = {name for name, number in owner.items() if number == str(fold)}
        odd = sorted(expected.symmetric_difference(predictions.ids))
        if predictions.ids and not expected:
            whole = False
            find.bad(
                f"{kept.folder.folds} has no image of fold {fold}, which predicted "
                f"{counted(len(predictions.ids), 'image')}",
                "the same command writes it anew",
            )
            continue
        other = set(classes.get(fold, predictions.class_names)) ^ set(predictions.class_names)
        again = f"remove {files.state} to train that fold again"
        if other:
            whole = False
            find.bad(
                f"{files.predictions} does not have the classes: {some(sorted(other))} in one of "
                "the two only",
                again,
            )
        elif odd:
            whole = False
            find.bad(
                f"{files.predictions} does not have the images of folds.csv: {some(odd)} in one of "
                "the two only",
                f"the same command writes folds.csv anew; where they differ still, {again}",
            )
    if whole:
        find.good(f"out-of-fold predictions of {counted(total, 'image')}, one of each")


def _read_predictions(_: Findings, path: Path) -> Predictions:
    return read_predictions(path)


def _check_metrics(find: Findings, kept: Kept, finished: dict[int, int]) -> None:
    path = kept.folder.metrics
    try:
        table = pd.read_csv(path)
        rows = {fold: table[table["fold"] == fold] for fold in finished}
        epochs = {fold: sorted(part["epoch"].tolist()) for fold, part in rows.items()}
        losses = np.concatenate(
            [part["train_loss"].to_numpy(dtype=float) for part in rows.values()]
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); checkpoints and predictions do not need it"
        ) from error
    odd = [fold for fold, told in epochs.items() if told != list(range(1, finished[fold] + 1))]
    if odd:
        find.bad(
            f"{path} does not have one row for each epoch of fold {some(odd)}",
            "its curves are not whole; checkpoints and predictions do not need it",
        )
    elif not np.isfinite(losses).all():
        find.bad(f"{path} holds losses that are not finite", "train with a lower learning rate")
    else:
        find.good(f"metrics.csv: {counted(len(losses), 'epoch')}, every loss finite")
