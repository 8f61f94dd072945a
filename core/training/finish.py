"""End of a run: pooled out-of-fold metrics, report, paths of the results."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from core.config.values import flat
from core.data.splits.prepare import PreparedData
from core.errors import UserError
from core.io.untrusted_files import check_regular
from core.metrics import Evaluation, evaluate
from core.models.starting_weights import describe_origin
from core.report.figures import draw_pictures
from core.report.page import Contents, rerun_command, write_report
from core.report.plots.training_curves import FACTOR, NUMBERS, RATE
from core.report.tables import (
    SUMMARY_ROWS,
    Table,
    class_table,
    fold_tables,
    format_table,
    lead_sentence,
    source_tables,
    summary_table,
)
from core.report.worst_images import worst_cases
from core.runs.folder import RunFolder
from core.runs.prediction_files import read_predictions
from core.runtime.environment import describe_changes
from core.runtime.log import logger
from core.trackers.tracker import Tracker
from core.training.resume import is_finished
from core.training.run import Run


def finish_run(run: Run, try_next: Sequence[str]) -> None:
    """Score the finished folds, write the report and print a summary, on the first rank.

    `try_next`: flags to suggest for another run once every fold is trained. Raises UserError if a
    file of a finished fold is missing or invalid, the run folder was removed, or a file cannot be
    written.
    """
    if not run.fabric.is_global_zero:
        return
    run.folder.check_place()
    done = find_finished_folds(run.folder, run.prepared.folds)
    of_folds = [_predictions_of(run.folder, run.prepared, fold) for fold in done]
    evaluation, contents = _evaluate_folds(run, done, of_folds)
    report = write_report(run.folder.path, contents)
    _track_results(run, evaluation, contents, len(done))
    # the folder may have been replaced while the report was written
    run.folder.check_place()
    images = sum(len(rows) for rows, _ in of_folds)
    logger.info(f"\nvalidation predictions of {_describe_folds(run, done)}, {images:,} images:")
    logger.info(format_table(evaluation))
    if run.prepared.by_image:
        logger.info(f"\n{run.prepared.by_image}")
    logger.info(f"\nrun folder   {run.folder.path}")
    logger.info(f"report       {report}")
    for fold in done:
        logger.info(f"checkpoint   {run.folder.files(fold).weights}")
    _print_next(run, done, try_next)
    run.folder.release()


def _describe_folds(run: Run, done: Sequence[int]) -> str:
    folds = run.prepared.folds
    return "the official split" if folds == 1 else f"{len(done)} of {folds} folds"


def _evaluate_folds(
    run: Run, done: Sequence[int], of_folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[Evaluation, Contents]:
    """Evaluate all predictions; returns the evaluation and the report's contents.

    `of_folds`: table rows (V,) and probabilities (V, C) of the folds in `done`.
    """
    folder, table, config = run.folder, run.prepared.table, run.config
    rows, probabilities = (np.concatenate(part) for part in zip(*of_folds, strict=True))
    prevalence = run.prepared.prevalence(config.loader.source_weights)
    targets, names = table.hard_targets[rows], table.class_names
    patients = None if table.patients is None else table.patients[rows]
    evaluation = evaluate(targets, probabilities, names, prevalence, patients)
    evaluations = {
        fold: evaluate(table.hard_targets[held_out], predicted, names, prevalence, resamples=0)
        for fold, (held_out, predicted) in zip(done, of_folds, strict=True)
    }
    by_source = {}
    if table.sources is not None:
        for place, name in enumerate(table.source_names):
            own = table.sources[rows] == place
            if own.any():
                part = targets[own], probabilities[own], names, prevalence
                by_source[name] = evaluate(*part, resamples=0)
    pictures = draw_pictures(evaluation, targets, probabilities, _read_history(folder.metrics))
    start = folder.starts[-1]
    environment = {name: start[name] for name in ("python", "platform", "commit")}
    environment |= start["versions"] | {"note": describe_changes(folder.starts)}
    anonymous, dry = config.data.anonymous, ", dry run" if config.run.dry_run else ""
    settings = flat(config, whole_paths=not anonymous)
    contents = Contents(
        title=f"{folder.path.name}: {folder.model}, {_describe_folds(run, done)}{dry}",
        lead="; ".join(filter(None, (lead_sentence(evaluation), run.prepared.by_image))),
        sections=[
            summary_table(evaluation),
            *pictures[:1],
            class_table(evaluation),
            *pictures[1:],
            *fold_tables(evaluation, evaluations),
            *source_tables(evaluation, by_source),
        ],
        worst=() if anonymous else worst_cases(evaluation, table, rows, probabilities),
        command="" if anonymous else rerun_command(["python", sys.argv[0]]),
        facts=_facts(settings, run.prepared) | {"starting weights": describe_origin(run.origin)},
        settings={name: _as_text(value) for name, value in settings.items()},
        environment={name: value for name, value in environment.items() if value},
    )
    return evaluation, contents


def _track_results(run: Run, evaluation: Evaluation, contents: Contents, folds: int) -> None:
    """Give the trackers the report's numbers and tables, and without --anonymous its figures.

    `folds`: number of finished folds, as the step.
    """
    summary, anonymous = evaluation.summary, run.config.data.anonymous
    numbers = {name: float(summary[name]) for name in SUMMARY_ROWS if name in summary}

    def log(tracker: Tracker) -> None:
        for section in contents.sections:
            if isinstance(section, Table):
                tracker.table(section.heading, section.columns, section.rows, folds)
            elif not anonymous:
                pixels = np.asarray(Image.open(io.BytesIO(section.png)).convert("RGB"))
                tracker.picture(section.heading, pixels, folds)
        tracker.log_metrics(numbers, folds)

    run.trackers.begin(None)
    run.trackers.each(log)
    run.trackers.end(finished=True)


def _print_next(run: Run, done: Sequence[int], try_next: Sequence[str]) -> None:
    """Print the next command: the real run after a dry run, the other folds, or `try_next`."""
    program = ["python", sys.argv[0]]
    if run.measured is not None:
        logger.info(run.measured.describe(run.folder.files(done[0]).weights))
        logger.info("dry run      everything works; its scores mean nothing. Next:")
        dry = {"--dry_run", "--dry-run"}
        # without the flag, --dry_run came from a --config file
        real = [] if dry & set(sys.argv) else ["--no-dry_run"]
        logger.info(rerun_command(program, {"--overwrite", *dry}, real))
        return
    left = [str(fold) for fold in range(1, run.prepared.folds + 1) if fold not in done]
    more = ["--run_folds", *left] if left else list(try_next)
    if run.folder.resumed and not left:
        # the command lacks settings that the resume took from the run
        more = ["--config", str(run.folder.path / "config.json"), *more]
    logger.info(f"try next     {rerun_command(program, more=more)}")


def find_finished_folds(folder: RunFolder, folds: int) -> list[int]:
    """Folds (from 1) that are trained to the end. Raises UserError if a checkpoint is missing."""
    done = [fold for fold in range(1, folds + 1) if is_finished(folder.files(fold).state)]
    for fold in done:
        if not folder.files(fold).weights.is_file():
            raise UserError(
                f"{folder.files(fold).weights} is missing: restore it, or delete "
                f"{folder.files(fold).state.name} there to train that fold again"
            )
    return done


def _facts(settings: dict[str, Any], prepared: PreparedData) -> dict[str, str]:
    """Description and digest of the data, for the report."""
    table = prepared.table
    patients = "not known" if table.patients is None else f"{len(np.unique(table.patients)):,}"
    files, validated = (_as_text(settings[name]) for name in ("train_csv", "val_csv"))
    files += validated and f", validated on {validated}"
    return {
        "data": f"{files}: {len(table):,} images, patients {patients}",
        "digest": f"{prepared.fingerprint()[:16]} (images, labels, patients and folds)",
        **({"command": "not shown (--anonymous)"} if settings["anonymous"] else {}),
    }


def _as_text(value: Any) -> str:
    """Format a setting as on the command line."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value))
    return "" if value is None else str(value)


def _predictions_of(
    folder: RunFolder, prepared: PreparedData, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """Table rows (V,) and probabilities (V, C) of a fold's prediction file, matched by name."""
    table, path = prepared.table, folder.files(fold).predictions
    held_out = np.flatnonzero(prepared.assignment == fold - 1)
    ids, predictions = [table.ids[row] for row in held_out], read_predictions(path)
    classes = set(table.class_names) <= set(predictions.class_names)
    if sorted(predictions.ids) != sorted(ids) or not classes:
        raise UserError(
            f"{path} does not have the images and classes of fold {fold}: restore it, or delete "
            f"{folder.files(fold).state.name} there to train that fold again"
        )
    return held_out, predictions.select(ids, table.class_names)


def _read_history(path: Path) -> pd.DataFrame | None:
    """Read metrics.csv; None if it is missing. Raises UserError if it is invalid."""
    if not path.exists():
        return None
    try:
        check_regular(path)
        history = pd.read_csv(path)
        # couplings fitted by version 0.1 have no such column
        history = history if FACTOR in history else history.assign(**{FACTOR: 1.0})
        if missing := [name for name in (*NUMBERS, "phase") if name not in history]:
            raise ValueError(f"it has no column {missing[0]}")
        for name in (*NUMBERS, *(name for name in map(str, history) if name.endswith(RATE))):
            history[name] = pd.to_numeric(history[name])
        for name in ("fold", "epoch"):
            # the largest that can be drawn
            if not history[name].isin(range(1, 100_001)).all():
                raise ValueError(f"not each {name} is a number from 1 to 100,000")
        return history
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): restore it, or move it away for a report without "
            "curves"
        ) from error
