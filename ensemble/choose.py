"""Out-of-fold predictions of several runs → which to average, with which weights: ensemble.json.

    python -m ensemble.choose --runs outputs/csra_db_cas outputs/standard_head
    python -m ensemble.infer --ensemble ensemble.json --image_dir images

Tries the single best run, the equal mean, greedy selection (Caruana 2004) and non-negative weights.
What is gained is measured by nested cross-validation: on patients that took part neither in the
fit of the weights nor in the choice among these four. Writes the blended out-of-fold predictions
too, ensemble_oof.csv, for ensemble.calibrate; as the final weights were fitted on these very rows,
scores of that file are slightly optimistic. Where labels are of several sources, or of a part of
one, they are written as well, ensemble_labels.csv: one CSV by the names of the predictions.
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
from core.errors import UserError, some
from core.io.atomic import make_folder, together, write_atomically

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from core.data.tables.label_table import LabelTable
    from core.metrics import Evaluation, PairedDifference
    from ensemble.fitting.out_of_fold import Run
    from ensemble.fitting.weights import Gains, Selection


@dataclass(kw_only=True, slots=True)
class Config:
    """Choose the weights of an ensemble."""

    runs: tuple[Path, ...] = ()
    """Run folders; folds that are not trained to the end are left out. One alone gets weight 1."""
    labels: Path | None = None
    """CSV of the labels; the one that the runs were trained with unless given."""
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
    """Where the weights go; beside it the blended out-of-fold predictions, as ..._oof.csv."""
    overwrite: bool = False
    """Replace what an earlier call wrote there."""


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    if not config.runs:
        raise UserError("no runs are given: name their folders with --runs")
    # late, so that --help and a mistyped flag are answered at once
    import numpy as np
    import pandas as pd

    from core.runs.prediction_files import match_labels
    from ensemble.fitting.out_of_fold import (
        member_names,
        of_trained_folds,
        read_labels,
        read_run,
        shared_source,
        write_labels,
    )
    from ensemble.fitting.weights import Pool, measure_gains, select
    from ensemble.predict.ensemble_json import Member, check_output, write_recipe

    names = member_names(config.runs)
    runs = [read_run(path) for path in config.runs]
    columns = ("image_column", "patient_column", "uncertain", "blank")
    given = {name: getattr(config, name) for name in columns}
    source = shared_source(runs, given, config.labels)
    if source.gone and config.labels is None:
        raise UserError(
            f"{runs[0].path} took its labels from {source.gone[0]}, which is not found from here "
            f"({Path.cwd()}): name the CSV by --labels, or run this where the training was started"
        )
    tables = [one.predictions for one in runs]
    labels, as_they_are = read_labels(source, tables)
    oof = config.output.with_name(f"{config.output.stem}_oof.csv")
    joined = config.output.with_name(f"{config.output.stem}_labels.csv")
    beside = [oof] if as_they_are else [oof, joined]
    inputs = [*source.csvs, *(file for one in runs for file in one.files)]
    check_output(config.output, "ensemble", inputs, beside=beside, overwrite=config.overwrite)
    labels, tables, left_out = of_trained_folds(runs, labels, common=config.common)
    labels, probabilities, notes = match_labels(tables, labels, source.told, common=config.common)
    notes = [*left_out, *notes]
    pool = Pool(np.stack([one.T for one in probabilities]), labels.targets.T)
    _print_inputs(runs, names, labels, notes)
    selection = select(pool, labels.patients, config.monitor, config.folds, config.seed)
    gains = measure_gains(pool, selection, labels.class_names, labels.patients, config.seed)
    _print_results(config, names, selection, gains)

    weights = selection.weights[selection.chosen]
    frame = pd.DataFrame(pool.blend(weights).T, columns=list(labels.class_names))
    frame.insert(0, tables[0].id_column, labels.ids)
    made_from = {
        "runs": {name: str(one.path) for name, one in zip(names, runs, strict=True)},
        "labels": str(source.told),
        "images": len(labels),
        "left_out": notes,
        **{name: getattr(config, name) for name in ("monitor", "folds", "seed")},
        **_as_json(selection, gains),
    }
    members = [
        Member(name, float(weight), one.checkpoints)
        for name, weight, one in zip(names, weights, runs, strict=True)
    ]
    # first: after a kill in between no recipe stands beside another one's predictions
    make_folder(oof.parent)
    with together(oof, joined):
        write_atomically(oof, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        if not as_they_are:
            write_labels(joined, labels)
        write_recipe(config.output, members, labels.class_names, made_from)
    print(f"\nweights      {config.output}")
    print(f"blended      {oof} (out-of-fold, {len(labels):,} images)")
    if as_they_are:
        usual = ("", None, "ignore")
        settings = {name: getattr(source.data.reading, name) for name in columns}
        reading = [f"--{name}={value}" for name, value in settings.items() if value not in usual]
        words = ["--labels", str(source.csvs[0]), *reading, *(["--common"] if notes else [])]
    else:
        print(f"labels       {joined} (as the runs read them)")
        words = ["--labels", str(joined), "--blank=unknown"]
    words = ["--predictions", str(oof), *words]
    print(f"calibrate    python -m ensemble.calibrate {shlex.join(words)}")
    print(f"predict      python -m ensemble.infer --ensemble {shlex.quote(str(config.output))}")


def _print_inputs(
    runs: Sequence[Run], names: Sequence[str], labels: LabelTable, notes: Sequence[str]
) -> None:
    """What was read, and what a reader must know of it."""
    people = "patients not known, split by image"
    if labels.patients is not None:
        people = f"{len(set(labels.patients)):,} patients"
    for name, one in zip(names, runs, strict=True):
        count = len(one.checkpoints)
        folds = f"{count} fold{'s' if count > 1 else ''}"
        print(f"run {name}: {folds}, {len(one.predictions.ids):,} images")
    doubts = [note for note in labels.notes if note.startswith("Warning")]
    for note in (*(one.note for one in runs if one.note), *notes, *doubts):
        print(note)
    count = len(labels.class_names)
    classes = f"{count} class{'' if count == 1 else 'es'}"
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
    rare = gain.summary["too_rare_for_intervals"]
    sentences = [
        "Own rows: scored on the rows that the weights were fitted on, which flatters them. Held "
        f"out, and the gain over the single best: weights fitted without these patients, "
        f"{config.folds} folds. All are means over the {gain.summary['classes_scored']} "
        "classes that can be scored. Intervals: 95 %, bootstrap, with the mean that they are of: "
        f"it is over the {gain.summary['classes_in_intervals']} classes with at least five "
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
