"""Out-of-fold predictions of several runs → which to average, with which weights: ensemble.json.

    python -m ensemble.choose --runs outputs/csra_db_cas outputs/standard_head
    python -m ensemble.infer --ensemble ensemble.json --image_dir images

Tries the single best run, the equal mean, greedy selection (Caruana 2004) and non-negative weights.
What is gained is measured by nested cross-validation: on patients that took part neither in the
fit of the weights nor in the choice among these four. Writes the blended out-of-fold predictions
too, ensemble_oof.csv, for ensemble.calibrate; as the final weights were fitted on these very rows,
scores of that file are slightly optimistic. Their labels stand beside them, ensemble_labels.csv:
those that the runs were trained with, which ensemble.calibrate and ensemble.evaluate find there.
"""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.config.command_line import flags, run
from core.config.values import Folds, Seed
from core.errors import UserError, counted, some
from core.io.atomic import make_folder, together, write_atomically

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    import numpy as np
    from numpy.typing import NDArray

    from core.data.tables.label_table import LabelTable
    from core.metrics import Evaluation, PairedDifference
    from ensemble.fitting.out_of_fold import Run
    from ensemble.fitting.weights import Gains, Selection
    from ensemble.predict.ensemble_json import Member


@dataclass(kw_only=True, slots=True)
class Config:
    """Choose the weights of an ensemble."""

    runs: tuple[Path, ...] = ()
    """Run folders; folds that are not trained to the end are left out. One alone gets weight 1."""
    labels: Path | None = None
    """CSV of the labels; those that the runs were trained with unless given."""
    uncertain: Literal["ignore", "zero", "one"] | None = None
    """What a label of -1 means: unknown and left out, 0, or 1; as the runs read it unless given."""
    blank: Literal["unknown", "zero"] | None = None
    """What a blank label means: unknown or 0; as the runs read it unless given."""
    image_column: str = ""
    """Column of the labels' CSV that names the image; as the runs read it unless given."""
    patient_column: str = ""
    """Column that names the patient, "none" to split by image on purpose; as the runs read it
    unless given."""
    common: bool = False
    """Use the images and classes that all runs and the labels have; else differences are an
    error."""
    monitor: Literal["mAP", "mAUROC"] = "mAP"
    """Macro metric that decides."""
    folds: Folds = 5
    """Folds of patients, outer and inner, of the nested cross-validation."""
    seed: Seed = 0
    """Seed of these folds and of the bootstrap."""
    output: Path = Path("ensemble.json")
    """Where the weights go; beside it the blended out-of-fold predictions, as ..._oof.csv, and
    their labels, as ..._labels.csv."""
    overwrite: bool = False
    """Replace what an earlier call wrote there."""


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    if not config.runs:
        raise UserError("no runs are given: name their folders with --runs")
    # late, so that --help and a mistyped flag are answered at once
    import numpy as np

    from core.runs.prediction_files import match_labels
    from ensemble.fitting.out_of_fold import member_names, of_trained_folds, read_run
    from ensemble.fitting.run_labels import labels_of
    from ensemble.fitting.weights import Pool, measure_gains, select
    from ensemble.predict.ensemble_json import Member, check_output

    names = member_names(config.runs)
    runs = [read_run(path) for path in config.runs]
    reading = ("image_column", "patient_column", "uncertain", "blank")
    labels = labels_of(runs, config.labels, {name: getattr(config, name) for name in reading})
    inputs = [*labels.files, *(file for one in runs for file in one.files)]
    check_output(
        config.output, "ensemble", inputs, beside=_beside(config), overwrite=config.overwrite
    )
    table, tables, left_out = of_trained_folds(runs, labels.table, common=config.common)
    table, probabilities, notes = match_labels(tables, table, labels.told, common=config.common)
    notes = [*left_out, *notes]
    pool = Pool(np.stack([one.T for one in probabilities]), table.targets.T)
    _print_inputs(runs, names, table, [*filter(None, [labels.note]), *notes])
    selection = select(pool, table.patients, config.monitor, config.folds, config.seed)
    gains = measure_gains(pool, selection, table.class_names, table.patients, config.seed)
    _print_results(config, names, selection, gains)
    made_from = {
        "runs": {name: str(one.path) for name, one in zip(names, runs, strict=True)},
        "labels": str(labels.told),
        "images": len(table),
        "left_out": notes,
        **{name: getattr(config, name) for name in ("monitor", "folds", "seed")},
        **_as_json(selection, gains),
    }
    weights = selection.weights[selection.chosen]
    members = [
        Member(name, float(weight), one.checkpoints)
        for name, weight, one in zip(names, weights, runs, strict=True)
    ]
    _write(config, members, table, pool.blend(weights).T, made_from)


def _beside(config: Config) -> tuple[Path, Path]:
    """The blended predictions and their labels, beside the weights."""
    oof, labels = (config.output.with_stem(f"{config.output.stem}_{n}") for n in ("oof", "labels"))
    return oof.with_suffix(".csv"), labels.with_suffix(".csv")


def _write(
    config: Config,
    members: Sequence[Member],
    table: LabelTable,
    blended: NDArray[np.float64],
    made_from: dict[str, Any],
) -> None:
    """Write weights, blended predictions (N, C) and labels; print where, and what comes next."""
    import pandas as pd

    from core.data.tables.labels_csv import write_labels
    from ensemble.predict.ensemble_json import write_recipe

    oof, labels = _beside(config)
    frame = pd.DataFrame(blended, columns=list(table.class_names))
    frame.insert(0, "ImageID", table.ids)
    # first: after a kill in between no recipe stands beside another one's predictions
    make_folder(oof.parent)
    with together(oof, labels):
        write_atomically(oof, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        write_labels(labels, table)
        write_recipe(config.output, members, table.class_names, made_from)
    print(f"\nweights      {config.output}")
    print(f"blended      {oof} (out-of-fold, {len(table):,} images)")
    print(f"labels       {labels} (as the runs read them)")
    print(f"calibrate    python -m ensemble.calibrate --predictions {shlex.quote(str(oof))}")
    print(f"predict      python -m ensemble.infer --ensemble {shlex.quote(str(config.output))}")


def _print_inputs(
    runs: Sequence[Run], names: Sequence[str], labels: LabelTable, notes: Sequence[str]
) -> None:
    """What was read, and what a reader must know of it."""
    people = "patients not known, split by image"
    if labels.patients is not None:
        people = f"{len(set(labels.patients)):,} patients"
    for name, one in zip(names, runs, strict=True):
        folds = counted(len(one.checkpoints), "fold")
        print(f"run {name}: {folds}, {len(one.predictions.ids):,} images")
    doubts = [note for note in labels.notes if note.startswith("Warning")]
    for note in (*(one.note for one in runs if one.note), *notes, *doubts):
        print(note)
    classes = counted(len(labels.class_names), "class", "classes")
    print(f"{len(labels):,} images, {people}, {classes}", flush=True)


def _print_results(
    config: Config, names: Sequence[str], selection: Selection, gains: Gains
) -> None:
    """The weights, what they score, and what that means."""
    from ensemble.fitting.weights import METRICS

    width = max(len(name) for name in ("weights on all rows", *names))
    print(f"\n{'weights on all rows':<{width}}", *(f"{name:>12}" for name in selection.weights))
    for row, name in enumerate(names):
        cells = (f"{weights[row]:>12.4f}" for weights in selection.weights.values())
        print(f"{name:<{width}}", *cells)
    for metric in sorted(METRICS, key=lambda one: one != config.monitor):
        for line in _score_lines(metric, gains):
            print(line)
    print()
    for sentence in _verdict(config, selection, gains):
        print(textwrap.fill(sentence, 100, subsequent_indent="  "))


def _score_lines(metric: str, gains: Gains) -> list[str]:
    """One line a strategy, of at most 100 columns."""
    line = "{:<15} {:>8}  {:>8} {:<24}  {:>8} {:<27}"
    lines = [line.format(metric, "own rows", "held out", "  interval", "gain", "  interval")]
    for name, evaluation in gains.held_out.items():
        own = gains.fitted[metric].get(name)
        cells = ["" if own is None else f"{own:.4f}", *_with_interval(evaluation, metric)]
        if name in gains.over_single_best:
            cells += _with_interval(gains.over_single_best[name], metric, "+")
        lines.append(line.format(name, *cells, *[""] * (5 - len(cells))))
    return ["", *(one.rstrip() for one in lines)]


def _with_interval(
    scores: Evaluation | PairedDifference, metric: str, sign: str = ""
) -> tuple[str, str]:
    """A mean over classes; and the one over the classes that are common enough, with interval."""
    summary = scores.summary
    value = f"{summary[metric]:{sign}.4f}"
    if metric not in summary["intervals"]:
        return value, ""
    low, high = summary["intervals"][metric]
    point = summary["interval_points"][metric]
    return value, f"{point:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _verdict(config: Config, selection: Selection, gains: Gains) -> list[str]:
    """Sentences on what was chosen and what it gains, whatever its sign."""
    from core.report.tables import SHOWN_NAMES
    from ensemble.fitting.weights import PROCEDURE, SINGLE_BEST

    metric, chosen = config.monitor, selection.chosen
    picks = ", ".join(f"{name} {count}" for name, count in Counter(selection.picks).most_common())
    gain = gains.over_single_best[PROCEDURE]
    rare, unscored = gain.summary["too_rare_for_intervals"], gain.summary["unscored"]
    sentences = [
        "Own rows: scored on the rows that the weights were fitted on, which flatters them. Held "
        f"out, and the gain over the single best: weights fitted without these patients, "
        f"{config.folds} folds. All are means over the {gain.summary['classes_scored']} "
        f"classes that can be scored{', without ' if unscored else ''}"
        f"{some(unscored, SHOWN_NAMES)}. Intervals: 95 %, bootstrap, with the mean that they are "
        f"of: it is over the {gain.summary['classes_in_intervals']} classes with at least five "
        f"positive patients{', without ' if rare else ''}{some(rare, SHOWN_NAMES)}.",
        f"Chosen: {chosen}, the best on held-out patients (in the folds: {picks}).",
        f"The whole procedure, this choice included, gains {_told(gain, metric)} over "
        f"the single best run on held-out patients. Its own rows would promise "
        f"{gains.fitted[metric][chosen] - gains.fitted[metric][SINGLE_BEST]:+.4f}.",
    ]
    low = gain.summary["intervals"].get(metric, (float("-inf"),))[0]
    if chosen != SINGLE_BEST and low <= 0:
        sentences.append(
            "These data do not show that an ensemble beats one run: the interval reaches 0."
        )
    return sentences


def _told(gain: PairedDifference, metric: str) -> str:
    value, interval = _with_interval(gain, metric, "+")
    return f"{value} {metric} {f'(interval {interval})' if interval else '(no interval)'}"


def _as_json(selection: Selection, gains: Gains) -> dict[str, Any]:
    """What was chosen, and all scores."""
    from ensemble.fitting.weights import METRICS

    def of(scores: Evaluation | PairedDifference) -> dict[str, Any]:
        kept = ("intervals", "interval_points")
        found = {key: {m: scores.summary[key].get(m) for m in METRICS} for key in kept}
        return {metric: scores.summary[metric] for metric in METRICS} | found

    strategies = {}
    for name, evaluation in gains.held_out.items():
        strategies[name] = {"held_out": of(evaluation)}
        if name in selection.weights:
            strategies[name]["weights"] = selection.weights[name].tolist()
            strategies[name]["own_rows"] = {m: gains.fitted[m][name] for m in METRICS}
        if name in gains.over_single_best:
            strategies[name]["over_single_best"] = of(gains.over_single_best[name])
    return {
        "strategy": selection.chosen,
        "picks": list(selection.picks),
        "strategies": strategies,
    }


if __name__ == "__main__":
    run(main)
