"""Scores of checkpoints in a run folder, each on the images of its own validation fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.errors import UserError
from core.metrics import Evaluation, evaluate
from core.runs.prediction_files import match_labels, read_predictions
from ensemble.fitting.out_of_fold import Run, read_run
from ensemble.fitting.run_labels import RunLabels, labels_of
from ensemble.predict.ensemble import Member


@dataclass(frozen=True)
class FoldScores:
    """Of one checkpoint, on its own fold's validation images."""

    evaluation: Evaluation
    labels: str
    """names of the CSVs of the labels"""


def score_members(members: Sequence[Member]) -> list[FoldScores | None]:
    """Scores of each checkpoint; None for one that lies in no run folder.

    Intervals are over patients, or over images where these are unknown. Raises UserError where the
    predictions or labels of a run folder are not whole.
    """
    read = cache(_read)
    found: list[FoldScores | None] = []
    for member in members:
        folder, predictions = member.path.parent, _predictions(member.path)
        # a checkpoint that was exported has a config.json beside it too
        is_run = (folder / "folds.csv").is_file() or predictions.is_file()
        if not (folder / "config.json").is_file() or not is_run:
            found.append(None)
            continue
        try:
            found.append(_score(member, *read(folder)))
        except UserError as error:
            raise UserError(
                f"{member.path} cannot be scored for the card: {str(error).rstrip('.')}; "
                "--no-scores writes it without"
            ) from error
    return found


def _predictions(path: Path) -> Path:
    return path.with_name(f"{path.stem}_val.csv")


def _read(folder: Path) -> tuple[Run, RunLabels]:
    run = read_run(folder)
    return run, labels_of([run])


def _score(member: Member, run: Run, labels: RunLabels) -> FoldScores:
    if member.path not in run.checkpoints:
        raise UserError(f"{run.path} has no finished fold with these weights")
    predictions = read_predictions(_predictions(member.path))
    # the labels are those of all folds
    table, (probabilities,), _ = match_labels([predictions], labels.table, labels.told, common=True)
    if len(table) < len(predictions.ids):
        raise UserError(f"{labels.told} lacks images of {predictions.path}")
    evaluation = evaluate(table.targets, probabilities, table.class_names, patients=table.patients)
    csvs = run.settings.val_csv or run.settings.train_csv
    return FoldScores(evaluation, ", ".join(Path(csv).name for csv in csvs))
