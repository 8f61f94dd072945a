"""Validation scores for the model card: each checkpoint on its own validation fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.errors import UserError
from core.metrics import Evaluation, evaluate
from core.runs.prediction_files import match_labels, read_predictions
from ensemble.fitting.out_of_fold import Run, read_run
from ensemble.fitting.run_labels import RunLabels, read_run_labels
from ensemble.predict.ensemble import Member


@dataclass(frozen=True)
class FoldScores:
    """Scores of one checkpoint on the validation images of its fold."""

    evaluation: Evaluation
    labels: str  # names of the CSVs of the labels


def score_members(members: Sequence[Member]) -> list[FoldScores | None]:
    """Scores of each checkpoint, with intervals; None for a checkpoint outside of a run folder.

    Raises UserError if predictions or labels of a run folder are invalid.
    """

    @cache
    def read(folder: Path) -> tuple[Run, RunLabels]:
        run = read_run(folder)
        return run, read_run_labels([run])

    found: list[FoldScores | None] = []
    for path in (member.path for member in members):
        folder, predictions = path.parent, path.with_name(f"{path.stem}_val.csv")
        # an exported checkpoint has a config.json beside it too
        is_run = (folder / "folds.csv").is_file() or predictions.is_file()
        if not (folder / "config.json").is_file() or not is_run:
            found.append(None)
            continue
        try:
            found.append(_score(path, predictions, *read(folder)))
        except UserError as error:
            raise UserError(
                f"{path} cannot be scored for the card: {str(error).rstrip('.')}; write the card "
                "without scores by --no-scores"
            ) from error
    return found


def _score(path: Path, predictions: Path, run: Run, labels: RunLabels) -> FoldScores:
    if path not in run.checkpoints:
        raise UserError(f"{run.path} has no finished fold with these weights")
    own = read_predictions(predictions)
    # the labels are of all folds
    table, (probabilities,), _ = match_labels([own], labels.table, labels.path, common=True)
    if len(table) < len(own.ids):
        raise UserError(f"{labels.path} lacks images of {predictions}")
    evaluation = evaluate(table.targets, probabilities, table.class_names, patients=table.patients)
    csvs = run.settings.val_csv or run.settings.train_csv
    return FoldScores(evaluation, ", ".join(Path(csv).name for csv in csvs))
