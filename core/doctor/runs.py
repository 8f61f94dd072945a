"""Check of a run folder: finished folds, integrity, command to resume."""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from core.config.earlier_run import find_run
from core.doctor.checkpoints import check_checkpoint
from core.doctor.findings import Findings
from core.errors import UserError, list_first, pluralize
from core.io.lock import is_locked
from core.models.checkpoint import load_tensors
from core.runs.folder import FoldFiles, folds_of
from core.runs.prediction_files import read_predictions
from core.runtime.environment import earlier_starts


def check_run(find: Findings, path: Path) -> None:
    """Check folds, checkpoints and predictions of a run."""
    run = find.attempt(_open_run, path)
    if run is None:
        find.skip("folds, checkpoints and predictions need a valid config.json")
        return
    finished = _check_folds(find, *run)
    images = find.attempt(_read_folds, path / "folds.csv") if finished else None
    counts = []
    for files in finished:
        classes = find.attempt(check_checkpoint, files.weights)
        if images is not None:
            own = images.get(str(files.fold), [])
            counts.append(find.attempt(_check_predictions, files, own, classes))
    if counts and None not in counts:
        total = sum(count for count in counts if count)
        find.good(f"out-of-fold predictions of {pluralize(total, 'image')}, one of each")


def _open_run(find: Findings, path: Path) -> tuple[Path, list[FoldFiles], str]:
    """The folder, the files of its folds, and the command of the last start."""
    run = find_run(path)
    if run is None:
        raise UserError(f"{path} is not the folder of a run: name the --out_dir of a training")
    folds = folds_of(run)[: 1 if run.settings.get("val_csv") else None]
    starts = earlier_starts(run.environment)
    find.good(f"{path}: a run of {run.settings['model']}, {pluralize(len(starts), 'start')}")
    words = starts[-1].get("command") if starts else None
    command = shlex.join(["python", *map(str, words)]) if words else "the training's command"
    # a later start may have had other --run_folds
    chosen = run.settings.get("run_folds") or [files.fold for files in folds]
    return path, [one for one in folds if one.fold in chosen or one.state.exists()], command


def _check_folds(
    find: Findings, path: Path, folds: list[FoldFiles], command: str
) -> list[FoldFiles]:
    """Report the progress of each fold; returns the finished ones."""
    finished, stopped = [], []
    for files in folds:
        progress = find.attempt(_read_progress, files.state)
        if progress is None:
            continue
        if progress.get("finished") is True:
            finished.append(files)
        elif progress:
            done = f"{progress.get('epoch')} epochs and {progress.get('update')} updates"
            stopped.append(f"fold {files.fold} stopped after {done}")
        else:
            stopped.append(f"fold {files.fold} has no saved state yet")
    if finished:
        numbers = ", ".join(str(files.fold) for files in finished)
        find.good(f"{pluralize(len(finished), 'fold')} trained to the end: {numbers}")
    if stopped and is_locked(path):
        find.doubt(f"{list_first(stopped, 5)}: a process is training here now")
    elif stopped:
        find.bad(list_first(stopped, 5), f"rerun `{command}` to resume")
    elif len(finished) == len(folds) and not (path / "report.html").is_file():
        find.bad("every fold is trained, but there is no report.html", f"rerun `{command}`")
    return finished


def _read_progress(_: Findings, state: Path) -> dict[str, Any]:
    progress = load_tensors(state)[1].get("progress") if state.exists() else None
    return progress if isinstance(progress, dict) else {}


def _read_folds(_: Findings, path: Path) -> dict[str, list[str]]:
    """Images of each fold of a folds.csv."""
    try:
        folds = pd.read_csv(path, dtype=str, keep_default_na=False)
        return {str(fold): part["ImageID"].tolist() for fold, part in folds.groupby("fold")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): rerun the training's command to write it again"
        ) from error


def _check_predictions(
    _: Findings, files: FoldFiles, images: list[str], classes: tuple[str, ...] | None
) -> int:
    """Number of a fold's predictions. Raises UserError if its images or classes differ."""
    found = read_predictions(files.predictions)
    for what, here, there in (
        ("images of folds.csv", images, found.ids),
        ("classes of the checkpoint", classes or found.class_names, found.class_names),
    ):
        if odd := sorted(set(here) ^ set(there)):
            raise UserError(
                f"{files.predictions} does not have the {what}: {list_first(odd)} in only one of "
                "the two; rerun the training's command, which writes folds.csv again, and if they "
                f"still differ delete {files.state} to train that fold again"
            )
    return len(found.ids)
