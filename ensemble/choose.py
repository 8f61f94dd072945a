"""Choose ensemble weights from out-of-fold predictions of several runs: ensemble.json.

    python -m ensemble.choose outputs/csra_db_cas outputs/standard_head
    python -m ensemble.infer --ensemble outputs/ensemble.json --image_dir images

Compares the single best run, the equal mean, greedy selection (Caruana 2004) and non-negative
weights. The gain is measured by nested cross-validation over patients, the choice among the four
included. Also writes, for ensemble.calibrate and ensemble.evaluate:

ensemble_oof.csv: blended out-of-fold predictions; their scores are slightly optimistic, as the
final weights were fitted on the same rows.
ensemble_labels.csv: labels that the runs were trained with.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from core.config.command_line import flags, run
from core.config.values import Folds, Seed
from core.errors import UserError, list_first, pluralize
from core.io.atomic import make_folder, together, write_atomically
from core.runtime.log import logger

if TYPE_CHECKING:  # imported late for a fast --help
    import numpy as np
    from numpy.typing import NDArray

    from core.data.tables.label_table import LabelTable
    from ensemble.fitting.weights import Gain, Selection


@dataclass(kw_only=True, slots=True)
class Config:
    """Settings of `ensemble.choose`."""

    folders: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")
    ] = ()
    """Run folders; unfinished folds are left out. A single run gets weight 1."""
    runs: tuple[Path, ...] = ()
    """More run folders, as a flag."""
    labels: Path | None = None
    """CSV of the labels; by default those that the runs were trained with."""
    uncertain: Literal["ignore", "zero", "one"] | None = None
    """Meaning of a label of -1: unknown and left out, 0, or 1; by default as in the runs."""
    blank: Literal["unknown", "zero"] | None = None
    """Meaning of a blank label: unknown or 0; by default as in the runs."""
    image_column: str = ""
    """Column of the labels' CSV with the image names; by default as in the runs."""
    patient_column: str = ""
    """Column with the patient, "none" to split by image on purpose; by default as in the runs."""
    common: bool = False
    """Use the images and classes that all runs and the labels have; by default differences are an
    error."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Macro metric by which weights are chosen."""
    folds: Folds = 5
    """Folds of patients, outer and inner, of the nested cross-validation."""
    seed: Seed = 0
    """Seed of these folds."""
    output: Path = Path("outputs/ensemble.json")
    """Output JSON with the weights; blended predictions and labels are written beside it, as
    ..._oof.csv and ..._labels.csv."""
    overwrite: bool = False
    """Replace earlier outputs."""


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.runs = (*config.folders, *config.runs)
    if not config.runs:
        raise UserError("no runs are given: give run folders, such as outputs/a outputs/b")
    # imported late for a fast --help
    import numpy as np

    from core.runs.prediction_files import match_labels
    from ensemble.fitting.out_of_fold import member_names, read_run, restrict_to_trained_folds
    from ensemble.fitting.run_labels import read_run_labels
    from ensemble.fitting.weights import Pool, measure_gains, select
    from ensemble.predict.ensemble_json import check_output
    from ensemble.scoring.score import describe

    names = member_names(config.runs)
    runs = [read_run(path) for path in config.runs]
    reading = ("image_column", "patient_column", "uncertain", "blank")
    labels = read_run_labels(runs, config.labels, {name: getattr(config, name) for name in reading})
    inputs = [*labels.files, *(file for one in runs for file in one.files)]
    beside, overwrite = _beside(config), config.overwrite
    check_output(config.output, "ensemble", inputs, beside=beside, overwrite=overwrite)
    table, tables, left_out = restrict_to_trained_folds(runs, labels.table, common=config.common)
    table, probabilities, notes = match_labels(tables, table, labels.path, common=config.common)
    notes = [*left_out, *notes]
    for name, one in zip(names, runs, strict=True):
        folds = pluralize(len(one.checkpoints), "fold")
        logger.info(f"run {name}: {folds}, {len(one.predictions.ids):,} images")
    doubts = [note for note in table.notes if note.startswith("Warning")]
    for note in filter(None, [*(one.note for one in runs), labels.note, *notes, *doubts]):
        logger.info(note)
    logger.info(describe(table))
    pool = Pool(np.stack([one.T for one in probabilities]), table.targets.T)
    selection = select(pool, table.patients, config.monitor, config.folds, config.seed)
    gains = measure_gains(pool, selection, table.class_names, table.patients, config.seed)
    _print_results(config, names, selection, gains)
    made_from = {
        "runs": dict(zip(names, map(str, config.runs), strict=True)),
        "labels": str(labels.path),
        "images": len(table),
        "left_out": notes,
        **{name: getattr(config, name) for name in ("monitor", "folds", "seed")},
        **_as_json(selection, gains),
    }
    weights = selection.weights[selection.chosen]
    members = zip(names, weights.tolist(), [one.checkpoints for one in runs], strict=True)
    _write(config, members, table, pool.blend(weights).T, made_from)


def _beside(config: Config) -> tuple[Path, Path]:
    start = config.output.with_suffix("")
    return Path(f"{start}_oof.csv"), Path(f"{start}_labels.csv")


def _write(
    config: Config,
    members: Iterable[tuple[str, float, Sequence[Path]]],
    table: LabelTable,
    blended: NDArray[np.float64],
    made_from: dict[str, Any],
) -> None:
    """Write weights, blended predictions (N, C) and labels; print the paths and next commands."""
    import pandas as pd

    from core.data.tables.labels_csv import write_labels
    from ensemble.predict.ensemble_json import write_recipe

    oof, labels = _beside(config)
    frame = pd.DataFrame(blended, columns=list(table.class_names))
    frame.insert(0, "ImageID", table.ids)
    # before the JSON, so that a kill in between leaves no JSON beside old predictions
    make_folder(oof.parent)
    with together(oof, labels):
        write_atomically(oof, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        write_labels(labels, table)
        write_recipe(config.output, members, table.class_names, made_from)
    logger.info(f"\nweights      {config.output}")
    logger.info(f"blended      {oof} (out-of-fold, {len(table):,} images)")
    logger.info(f"labels       {labels} (as the runs read them)")
    logger.info(f"calibrate    python -m ensemble.calibrate --predictions {shlex.quote(str(oof))}")
    logger.info(
        f"predict      python -m ensemble.infer --ensemble {shlex.quote(str(config.output))}"
    )


def _print_results(
    config: Config, names: Sequence[str], selection: Selection, gains: Mapping[str, Gain]
) -> None:
    """Print the weights, their scores and a summary."""
    from core.report.tables import Table
    from ensemble.fitting.weights import METRICS
    from ensemble.scoring.tables import mean_with_interval

    weights = selection.weights
    rows = [[n, *(f"{w[row]:.4f}" for w in weights.values())] for row, n in enumerate(names)]
    tables = [Table("", ("weights on all rows", *weights), rows)]
    for metric in sorted(METRICS, key=lambda one: one != config.monitor):
        rows = []
        for name, one in gains.items():
            own = f"{one.own_rows[metric]:.3f}" if one.own_rows else ""
            gain = one.over_single_best
            more = mean_with_interval(gain.summary, metric, "+") if gain else ""
            rows.append([name, own, mean_with_interval(one.held_out.summary, metric), more])
        tables.append(Table("", (metric, "own rows", "held out", "gain over single best"), rows))
    tables[-1] = replace(tables[-1], notes=tuple(_verdict(config, selection, gains)))
    for table in tables:
        logger.info(f"\n{table.as_text()}")


def _verdict(config: Config, selection: Selection, gains: Mapping[str, Gain]) -> list[str]:
    """Describe the chosen strategy and its gain."""
    from core.report.tables import SHOWN_NAMES
    from ensemble.fitting.weights import PROCEDURE, SINGLE_BEST
    from ensemble.scoring.tables import mean_with_interval, star_note

    metric, chosen = config.monitor, selection.chosen
    picks = ", ".join(f"{name} {count}" for name, count in Counter(selection.picks).most_common())
    difference = gains[PROCEDURE].over_single_best
    assert difference is not None
    gain, unscored = difference.summary, difference.summary["unscored"]
    promised = gains[chosen].own_rows[metric] - gains[SINGLE_BEST].own_rows[metric]
    sentences = [
        "Own rows: scored on the rows that the weights were fitted on (optimistic). Held out, and "
        f"the gain: weights fitted without these patients, {config.folds} folds. All are means "
        f"over the {gain['classes_scored']} classes that can be scored"
        f"{', without ' if unscored else ''}{list_first(unscored, SHOWN_NAMES)}. Intervals: 95 %, "
        f"jackknife over patients. {star_note(gain)}",
        f"Chosen: {chosen}, the best on held-out patients (in the folds: {picks}).",
        f"The whole procedure, this choice included, gains {mean_with_interval(gain, metric, '+')} "
        f"{metric} over the single best run on held-out patients; on its own rows "
        f"{promised:+.3f}. The interval ignores the variance of the choices: in simulations it "
        "contained the mean gain in 87 to 90 % of the cases (docs/coverage.md).",
    ]
    low = gain["intervals"].get(metric, (float("-inf"),))[0]
    if chosen != SINGLE_BEST and low <= 0:
        sentences.append(
            "No evidence that an ensemble is better than one run: the interval is not above 0."
        )
    return sentences


def _as_json(selection: Selection, gains: Mapping[str, Gain]) -> dict[str, Any]:
    from ensemble.scoring.outputs import as_json

    strategies: dict[str, dict[str, Any]] = {}
    for name, one in gains.items():
        strategies[name] = {"held_out": one.held_out.summary}
        if one.over_single_best:
            strategies[name]["over_single_best"] = one.over_single_best.summary
        if name in selection.weights:
            weights = selection.weights[name].tolist()
            strategies[name] |= {"weights": weights, "own_rows": one.own_rows}
    chosen = {"strategy": selection.chosen, "picks": selection.picks}
    return as_json({**chosen, "strategies": strategies})


if __name__ == "__main__":
    run(main)
