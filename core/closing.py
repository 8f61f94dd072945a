"""The end of a run: pooled out-of-fold metrics, the report, and where everything is."""

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.prepare import Prepared
from core.errors import UserError
from core.metrics import Evaluation, evaluate
from core.plots import NUMBERS
from core.report import format_table, write_report
from core.resume import is_finished
from core.runfolder import RunFolder
from core.runtime import versions
from core.untrusted import check_regular


def close_run(
    folder: RunFolder, prepared: Prepared, settings: dict[str, Any], try_next: list[str]
) -> Evaluation:
    """Score the pooled predictions of all finished folds, write the report, print the summary.

    `settings` by flag name; `try_next` holds flags that are worth a second run once no fold is
    left. Every number comes from the prediction files that lie in the folder.
    """
    folder.check_place()
    folds = prepared.folds
    done = finished_folds(folder, folds)
    rows, probabilities = _pooled(folder, prepared, done)
    table = prepared.table
    evaluation = evaluate(
        table.targets[rows],
        probabilities,
        table.class_names,
        prevalence=prepared.prevalence(settings["source_weights"]),
        patients=None if table.patients is None else table.patients[rows],
    )
    which = "the official split" if folds == 1 else f"{len(done)} of {folds} folds"
    report = write_report(
        folder.path,
        evaluation,
        table.targets[rows],
        probabilities,
        _read_history(folder.metrics),
        title=f"{folder.path.name}: {folder.model}, {which}",
        facts=_facts(settings, prepared),
    )
    print(f"\nvalidation predictions of {which}, {len(rows):,} images:")
    print(format_table(evaluation))
    print(f"\nrun folder   {folder.path}")
    print(f"report       {report}")
    for fold in done:
        print(f"checkpoint   {folder.files(fold).weights}")
    left = [str(fold) for fold in range(1, folds + 1) if fold not in done]
    if settings["dry_run"]:
        print("dry run      all of it works, and its numbers mean nothing; the real run:")
        print(_command(real=True), flush=True)
    else:
        more = ["--run_folds", *left] if left else try_next
        print(f"try next     {_command()} {shlex.join(more)}", flush=True)
    folder.release()
    return evaluation


def finished_folds(folder: RunFolder, folds: int) -> list[int]:
    """Which of `folds` folds (from 1) are trained to the end.

    Raises UserError where the weights of one are gone.
    """
    done = [fold for fold in range(1, folds + 1) if is_finished(folder.files(fold).state)]
    for fold in done:
        if not folder.files(fold).weights.is_file():
            raise UserError(
                f"{folder.files(fold).weights} is gone: put it back, or --overwrite trains anew"
            )
    return done


def _facts(settings: dict[str, Any], prepared: Prepared) -> dict[str, str]:
    """What a reader of the report must know to trust its numbers."""
    table = prepared.table
    anonymous = settings["anonymous"]
    patients = "not known" if table.patients is None else f"{len(np.unique(table.patients)):,}"
    files, validated = (
        ", ".join(Path(csv).name if anonymous else csv for csv in settings[name])
        for name in ("train_csv", "val_csv")
    )
    if validated:
        files += f", validated on {validated}"
    changed = ("model", "img_size", "epochs", "batch_size", "loss", "logit_adjust", "tta", "seed")
    return {
        "command": "not told (--anonymous)" if anonymous else _command(),
        "data": f"{files}: {len(table):,} images, patients {patients}",
        "settings": ", ".join(f"{name} {settings[name]}" for name in changed),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def _command(*, real: bool = False) -> str:
    """This command again, for one process, without what would delete the run; `real`: not dry."""
    unwanted = {"--overwrite", "--dry_run", "--dry-run"} if real else {"--overwrite"}
    words = [word for word in sys.argv if word not in unwanted]
    return f"python {shlex.join(words)}"


def _pooled(
    folder: RunFolder, prepared: Prepared, folds: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(table rows, probabilities (rows, C)) of the folds' prediction files, matched by name."""
    names = np.asarray(prepared.table.ids, dtype=object)
    rows, probabilities = [], []
    for fold in folds:
        path = folder.files(fold).predictions
        frame = read_predictions(path, list(prepared.table.class_names))
        held_out = np.flatnonzero(prepared.assignment == fold - 1)
        if sorted(frame.index) != sorted(names[held_out]):
            raise UserError(
                f"{path} does not hold the images of fold {fold}, each once: it was changed after "
                "the run; --overwrite trains anew"
            )
        rows.append(held_out)
        probabilities.append(frame.loc[names[held_out]].to_numpy())
    return np.concatenate(rows), np.concatenate(probabilities)


def _read_history(path: Path) -> pd.DataFrame:
    """metrics.csv. Raises UserError where it cannot be read, or holds text in place of a number."""
    try:
        check_regular(path)
        history = pd.read_csv(path)
        for name in set(history) & NUMBERS:
            history[name] = pd.to_numeric(history[name])
        return history
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); --overwrite trains anew") from error


def read_predictions(path: Path, class_names: list[str]) -> pd.DataFrame:
    """A predictions CSV as a table indexed by ImageID with the columns `class_names`.

    Raises UserError where it cannot be read, a class has no column, or a cell is no probability.
    """
    try:
        check_regular(path)
        frame = pd.read_csv(path, dtype={"ImageID": str}, keep_default_na=False)
        frame = frame.set_index("ImageID")[class_names].astype(float)
        if not ((frame >= 0) & (frame <= 1)).all(axis=None):
            raise ValueError("not all cells are numbers from 0 to 1")
        return frame
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no predictions file of this run ({error})") from error
