"""Calibrate out-of-fold predictions: maps, thresholds and gating in calibration.json.

    python -m ensemble.calibrate --predictions outputs/ensemble_oof.csv
    python -m ensemble.calibrate outputs/a
    python -m ensemble.infer --ensemble outputs/ensemble.json --calibration outputs/calibration.json

For each class it chooses a map (none, temperature, Platt or isotonic) by cross-validated log loss,
then the threshold of best F1, and alpha of normal gating (0: off). The predictions must be
out-of-fold, as those in a run folder and those of ensemble.choose. All printed scores are of
held-out patients.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from core.config.command_line import flags, run
from core.config.data import LabelReading
from core.config.values import Folds, Seed
from core.errors import UserError, pluralize
from core.runtime.log import logger

if TYPE_CHECKING:  # imported late for a fast --help
    from pandas import DataFrame

    from core.metrics import PairedDifference
    from core.metrics.ap_auroc import FloatArray
    from ensemble.fitting.calibrators import OutOfFold, Problem
    from ensemble.predict.calibration import Calibration

SCORES = {
    "ECE": "ECE, mean over classes",
    "ECE_flat": "ECE, flattened",
    "log_loss": "log loss, mean over classes",
    "mF1": "mF1 at 0.5",
    "mF1_fitted": "mF1 at fitted thresholds",
    "mAP": "mAP",
    "mAUROC": "mAUROC",
}


@dataclass(kw_only=True, slots=True)
class Config:
    """Calibrate predictions."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = ()
    """Run folder with out-of-fold predictions, instead of --predictions."""
    predictions: Path | None = None
    """CSV of out-of-fold probabilities: each image predicted by models without its patient."""
    labels: Path | None = None
    """CSV of the labels: one row an image, one column a class (1, 0, -1 or blank); by default the
    labels that ensemble.choose or a run wrote beside --predictions."""
    reading: LabelReading = field(default_factory=LabelReading)
    """Reading of --labels."""
    common: bool = False
    """Use the images and classes that both files have; by default differences are an error."""
    folds: Folds = 5
    """Folds of patients, outer and inner, of the nested cross-validation."""
    seed: Seed = 0
    """Seed of these folds."""
    normal_class: str = ""
    """Class that means "nothing found"; by default Normal, No Finding or No_Finding."""
    output: Path = Path("outputs/calibration.json")
    """Output JSON: maps, thresholds and alpha."""
    overwrite: bool = False
    """Replace an earlier --output."""


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    given = [*config.runs, *filter(None, [config.predictions])]
    if not given:
        raise UserError("no predictions are given: give a run folder, or a CSV with --predictions")
    if len(given) > 1:
        raise UserError(
            f"{len(given)} runs or CSVs are given, but only one can be calibrated: merge runs by "
            "python -m ensemble.choose, then calibrate its ..._oof.csv"
        )
    config.predictions = given[0]
    # imported late for a fast --help
    from core.runtime.progress_bar import ProgressBar
    from ensemble.fitting.calibrators import GATED, fit_calibration, held_out
    from ensemble.predict.calibration import write_calibration
    from ensemble.scoring.outputs import as_json

    problem, notes = _read(config)
    steps = len(problem.class_names) * (config.folds + 1)
    with ProgressBar(total=steps, desc="calibrating classes", disable=None) as bar:
        tested = held_out(problem, config.folds, config.seed, bar)
        calibration = fit_calibration(problem, config.folds, config.seed, bar)
    scores, classes = score_stages(problem, tested)
    if problem.normal is None or not any((calibration.normal_alpha, *tested.alphas)):
        scores = scores.drop(columns=GATED)  # equal to CALIBRATED
    step = _print_scores(config, problem, tested, scores)
    _print_classes(calibration, classes, _describe_gating(calibration, tested.alphas, step))
    recommended = calibration.normal_alpha > 0 and step.is_better
    made_from = {
        "predictions": str(config.predictions),
        "labels": str(config.labels),
        "images": len(problem.targets),
        "notes": notes,
        "folds": config.folds,
        "seed": config.seed,
        "alphas_of_folds": tested.alphas,
        "gating_recommended": recommended,
        "held_out": as_json(scores.T),
        "held_out_classes": as_json(classes),
    }
    write_calibration(config.output, calibration, made_from)
    logger.info(f"\ncalibration  {config.output}")
    gating = " --postprocess normal_gating" if recommended else ""
    path = shlex.quote(str(config.output))
    logger.info(f"predict      python -m ensemble.infer ... --calibration {path}{gating}")


def _read(config: Config) -> tuple[Problem, list[str]]:
    """Read the predictions and labels, print and return notes on them."""
    from ensemble.fitting.calibrators import Problem
    from ensemble.fitting.out_of_fold import describe_folds, read_files_and_runs
    from ensemble.predict.calibration import NORMAL_NAMES, find_normal
    from ensemble.predict.ensemble_json import check_output
    from ensemble.scoring.score import describe, labels_beside, read_scored

    assert config.predictions is not None
    reading, own = config.reading, config.labels is None
    tables, runs = read_files_and_runs([config.predictions])
    config.labels = config.labels or labels_beside(config.predictions)
    read = (config.predictions, config.labels, reading.label_map)
    inputs = [*filter(None, read), *(file for run in runs for file in run.files)]
    check_output(config.output, "calibration", inputs, overwrite=config.overwrite)
    common = config.common
    scored = read_scored(
        tables, config.labels, reading=reading, own=own, common=common, common_images=bool(runs)
    )
    table, normal = scored.table, None
    if config.normal_class or set(NORMAL_NAMES) & set(table.class_names):
        normal = find_normal(table.class_names, config.normal_class)
    targets, probabilities = table.targets.astype(float), scored.files[config.predictions]
    problem = Problem(targets, probabilities, table.class_names, table.patients, normal)
    starts = ("Warning", "Labels of")  # doubts, and columns found by the label map
    notes = [*scored.notes, *(note for note in table.notes if note.startswith(starts))]
    notes += [f"Finished folds: {describe_folds(runs)}."] if runs else []
    gating = f"normal class {normal}" if normal else "no normal class: no gating"
    logger.info("\n".join([*notes, f"{describe(table)}, {gating}"]))
    return problem, notes


def score_stages(problem: Problem, tested: OutOfFold) -> tuple[DataFrame, DataFrame]:
    """Scores of held-out patients: SCORES by stage, and classes by positives and "score, stage"."""
    import numpy as np
    import pandas as pd

    from core.metrics import evaluate
    from core.metrics.ap_auroc import column_mean
    from ensemble.fitting.calibrators import log_losses

    means, columns = {}, {}
    for stage, probabilities in tested.probabilities.items():
        found = evaluate(problem.targets, probabilities, problem.class_names, resamples=0)
        ranked = evaluate(problem.targets, tested.ranks[stage], problem.class_names, resamples=0)
        table = found.per_class
        losses = pd.DataFrame(log_losses(problem.targets, probabilities), columns=table.index)
        called = tested.called[stage] & ~np.isnan(problem.targets)
        hits = (called & (problem.targets == 1)).sum(axis=0)
        fitted = 2 * hits / (called.sum(axis=0) + table["positives"]).clip(lower=1)
        fitted = fitted.where(table["ap"].notna())  # no F1 without both kinds of labels
        mean = {name: found.summary[name] for name in SCORES if name in found.summary}
        mean |= {name: ranked.summary[name] for name in ("mAP", "mAUROC")}
        mean |= {"log_loss": column_mean(losses.mean()), "mF1_fitted": column_mean(fitted)}
        means[stage] = pd.Series(mean)[list(SCORES)]
        columns["positives"] = table["positives"]
        columns |= {f"ECE, {stage}": table["ece"], f"F1 at 0.5, {stage}": table["f1"]}
        columns |= {f"log loss, {stage}": losses.mean(), f"F1 fitted, {stage}": fitted}
    return pd.DataFrame(means), pd.DataFrame(columns)


class _Step(NamedTuple):
    """Change of a stage against the stage before it, by the intervals of the differences."""

    gains_map: bool
    is_worse: bool  # log loss or Brier score
    has_interval: bool  # of the difference of mAP

    @property
    def is_better(self) -> bool:
        return self.gains_map and not self.is_worse


def _describe_gating(calibration: Calibration, alphas: list[float], step: _Step) -> list[str]:
    """Describe alpha and whether gating is recommended; [] without a normal class."""
    if (normal := calibration.normal_class) is None:
        return []
    alpha, folds = calibration.normal_alpha, ", ".join(f"{one:g}" for one in alphas)
    text = f"Gating by {normal}: alpha {alpha:g} (in the folds: {folds}) has the best mAP of the "
    text += "other classes on the rows of the fit."
    if not alpha:
        return [text]
    if step.is_better:
        return [f"{text} Recommended: held-out patients show a gain in mAP."]
    reason = "the interval of its gain in mAP on held-out patients does not lie above 0"
    if not step.has_interval:
        reason = "there are too few positive patients for an interval of its gain in mAP"
    if step.gains_map:
        reason = "it gains mAP on held-out patients, but its probabilities are worse"
    return [f"{text} Not recommended: {reason}."]


def _print_scores(config: Config, problem: Problem, tested: OutOfFold, scores: DataFrame) -> _Step:
    """Print held-out scores at each stage and the gain of each step; return the last step."""
    from core.metrics import paired_difference
    from core.report.tables import Table, number

    stages = [str(stage) for stage in scores]
    pairs = zip(SCORES.values(), scores.to_numpy(), strict=True)
    rows = [[label, *map(number, row)] for label, row in pairs]
    columns = (f"held-out patients, {config.folds} folds", *stages)
    notes = [
        "mAP and mAUROC use an image's rank among all images under the maps of its fold, as the "
        "scales of folds differ. A single map does not change them, apart from ties by isotonic."
    ]
    step = _Step(gains_map=False, is_worse=False, has_interval=False)
    for earlier, stage in pairwise(stages):
        both, names = (tested.ranks[stage], tested.ranks[earlier]), problem.class_names
        gain = paired_difference(problem.targets, *both, names, problem.patients, seed=config.seed)
        both = tested.probabilities[earlier], tested.probabilities[stage]
        text, is_worse = _compare_losses(problem, *both)
        notes.append(f"{earlier} → {stage}: {text} {_describe_gain(gain)}")
        interval = gain.summary["intervals"].get("mAP")
        step = _Step(bool(interval and interval[0] > 0), is_worse, interval is not None)
    logger.info(f"\n{Table('', columns, rows, tuple(notes)).as_text()}")
    return step


def _compare_losses(problem: Problem, before: FloatArray, after: FloatArray) -> tuple[str, bool]:
    """Describe changes of log loss and Brier score with intervals; True if one is worse."""
    import numpy as np

    from core.metrics.influence import cluster_indices
    from core.metrics.intervals import mean_losses
    from core.report.tables import number
    from ensemble.fitting.calibrators import log_losses

    clusters = cluster_indices(problem.patients, len(before))
    squares = [(one - problem.targets) ** 2 for one in (before, after)]
    logs = [log_losses(problem.targets, one) for one in (before, after)]
    changes, is_worse = [], False
    for name, (old, new) in {"log loss": logs, "Brier score": squares}.items():
        difference = mean_losses(new - old, clusters)
        low, high = difference.unbounded_interval()
        shown = number(float(difference.values), (float(low), float(high)), "+")
        is_worse |= bool(low > 0)
        verdict = "better" if high < 0 else "worse" if low > 0 else "no evidence of a difference"
        changes.append(f"{name} {shown}: {verdict if np.isfinite(low) else 'too few patients'}.")
    return " ".join(changes), is_worse


def _describe_gain(difference: PairedDifference) -> str:
    """Describe the gain in mAP and the number of its classes."""
    from ensemble.scoring.tables import STAR, mean_with_interval, star_note

    summary = difference.summary
    over = pluralize(summary["classes_scored"], "class", "classes")
    gain = mean_with_interval(summary, "mAP", "+")
    note = f" {star_note(summary)}" if STAR in gain else ""
    return f"mAP {gain} over the {over} that can be scored.{note}"


def _print_classes(calibration: Calibration, classes: DataFrame, notes: list[str]) -> None:
    from core.report.plots.style import shorten
    from core.report.tables import Table, number
    from ensemble.fitting.calibrators import BEFORE, CALIBRATED, FEWEST

    shown = {
        "ECE before": f"ECE, {BEFORE}",
        "after": f"ECE, {CALIBRATED}",
        "F1 at 0.5": f"F1 at 0.5, {BEFORE}",
        "at fitted": f"F1 fitted, {CALIBRATED}",
    }
    rows = []
    for name, row in classes.iterrows():
        one = calibration.classes[str(name)]
        cells = [number(row[column]) for column in shown.values()]
        threshold = "-" if one.threshold is None else number(one.threshold)
        method = type(one).__name__.lower()
        rows.append([shorten(str(name)), f"{row['positives']:,.0f}", method, *cells, threshold])
    columns = ("held-out patients", "positives", "map", *shown, "threshold")
    note = (
        f"No map with fewer than {FEWEST['platt']} positive or negative patients, no isotonic map "
        f"with fewer than {FEWEST['isotonic']}."
    )
    logger.info(f"\n{Table('', columns, rows, (note, *notes)).as_text()}")


if __name__ == "__main__":
    run(main)
