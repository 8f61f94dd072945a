"""Check of a run folder: which folds are finished, is it whole, and how is it resumed?"""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from core.doctor.checkpoints import check_checkpoint
from core.doctor.findings import Findings
from core.errors import UserError, counted, some
from core.io.lock import is_locked
from core.io.untrusted_files import read_json
from core.models.checkpoint import load_tensors
from core.runs.folder import FoldFiles, RunFolder
from core.runs.prediction_files import read_predictions
from core.runtime.environment import earlier_starts


def check_run(find: Findings, path: Path) -> None:
    """Check folds, checkpoints and predictions of a run."""
    run = find.look(_open_run, path)
    if run is None:
        find.unseen("folds, checkpoints and predictions need a config.json that can be read")
        return
    finished = _check_folds(find, *run)
    images = find.look(_read_folds, path / "folds.csv") if finished else None
    counts = []
    for files in finished:
        classes = find.look(check_checkpoint, files.weights)
        if images is not None:
            own = images.get(str(files.fold), [])
            counts.append(find.look(_check_predictions, files, own, classes))
    if counts and None not in counts:
        total = sum(count for count in counts if count)
        find.good(f"out-of-fold predictions of {counted(total, 'image')}, one of each")


def _open_run(find: Findings, path: Path) -> tuple[Path, list[FoldFiles], str]:
    """The folder, files of the folds that are trained, and command of the last start."""
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: name the --out_dir of a training")
    try:
        settings, environment = (read_json(path / name) for name in ("config.json", "env.json"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.json or env.json of {path} cannot be read ({error}): name the folder of a run"
        ) from error
    model, folds = settings.get("model"), settings.get("folds")
    # the name of files, which must not lead out of the folder
    is_name = isinstance(model, str) and model == Path(model).name and model not in ("", "..")
    if not is_name or type(folds) is not int or not 1 <= folds <= 1000:
        raise UserError(
            f"{path / 'config.json'} is not of a run, or was changed: name a run folder"
        )
    folder, count = RunFolder(path, str(model)), 1 if settings.get("val_csv") else folds
    every = [folder.files(fold) for fold in range(1, count + 1)]
    starts = earlier_starts(environment)
    find.good(f"{path}: a run of {model}, {counted(len(starts), 'start')}")
    words = starts[-1].get("command") if starts else None
    command = shlex.join(["python", *map(str, words)]) if words else "the training's command"
    # a later start may have been given other --run_folds
    asked = settings.get("run_folds") or range(1, count + 1)
    return path, [one for one in every if one.fold in asked or one.state.exists()], command


def _check_folds(
    find: Findings, path: Path, folds: list[FoldFiles], command: str
) -> list[FoldFiles]:
    """The folds that are trained to the end."""
    finished, stopped = [], []
    for files in folds:
        progress = find.look(_read_progress, files.state)
        if progress is None:
            continue
        if progress.get("finished") is True:
            finished.append(files)
        elif progress:
            done = f"{progress.get('epoch')} epochs and {progress.get('update')} updates"
            stopped.append(f"fold {files.fold} stopped after {done}")
        else:
            stopped.append(f"fold {files.fold} has not saved anything yet")
    if finished:
        numbers = ", ".join(str(files.fold) for files in finished)
        find.good(f"{counted(len(finished), 'fold')} trained to the end: {numbers}")
    if stopped and is_locked(path):
        find.doubt(f"{some(stopped, 5)}: a process is training here now")
    elif stopped:
        find.bad(some(stopped, 5), f"rerun `{command}` to resume")
    elif len(finished) == len(folds) and not (path / "report.html").is_file():
        find.bad("every fold is trained, and there is no report.html", f"rerun `{command}`")
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
    """Number of a fold's predictions. Raises UserError where they are not of its images once."""
    found = read_predictions(files.predictions)
    for what, here, there in (
        ("images of folds.csv", images, found.ids),
        ("classes of the checkpoint", classes or found.class_names, found.class_names),
    ):
        if odd := sorted(set(here) ^ set(there)):
            raise UserError(
                f"{files.predictions} does not have the {what}: {some(odd)} in one of the two "
                "only; rerun the training's command, which writes folds.csv again, and where they "
                f"still differ remove {files.state} to train that fold again"
            )
    return len(found.ids)
