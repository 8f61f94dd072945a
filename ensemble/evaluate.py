"""Predictions and labels → metrics with intervals: one table, one JSON, one CSV.

    python -m ensemble.evaluate --predictions p.csv --labels l.csv --train_csv train.csv
    python -m ensemble.evaluate --predictions p.csv --labels l.csv --against q.csv
    python -m ensemble.evaluate --predictions a.csv b.csv c.csv --labels l.csv

Several files give a leaderboard. Images and classes are matched by name.

How far to trust the 95 % intervals: on 400 simulated data sets that of a class's AP covered the
truth in 92 to 96 % where it had 50 positives or more, in 93 to 95 % with 20 and in 87 to 91 % with
8; that of its AUROC in 90 to 96 %, 82 to 95 % and 73 to 87 %, and where it misses it is usually too
high. Where the images of a patient resemble each other, AP was covered one to two points less
often; with resamples of images in place of patients in 81 to 89 % only. The interval of a mean over
classes is corrected for the bias of AP where positives are few, and that of mAP then covered the
truth in 92 % (`python -m benchmarks.coverage`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.cli import flags, run
from core.config import check_not_negative
from core.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from pandas import DataFrame

    from ensemble.scoring import Scored
    from ensemble.subgroups import Grouping


@dataclass(kw_only=True, slots=True)
class Config:
    """Score predictions."""

    predictions: tuple[Path, ...] = ()
    """CSVs of probabilities, as ensemble.infer writes them; several give a leaderboard."""
    labels: Path | None = None
    """CSV of the labels: one row an image (or study), one column a class (1, 0, -1 or blank), or a
    known source's own table."""
    train_csv: Path | None = None
    """CSV of the training labels, whose prevalences divide classes into head, medium and tail; the
    scored labels themselves unless given."""
    against: Path | None = None
    """CSV of probabilities to take paired differences to; a leaderboard takes them to the first of
    --predictions unless given."""
    by: tuple[str, ...] = ()
    """Subgroups: sex, view, age, or any column of --labels or --meta by its name."""
    meta: Path | None = None
    """CSV of more columns for --by, joined by the images' names."""
    thresholds: str = ""
    """Operating points at this threshold, or at those of a calibration.json of
    ensemble.calibrate."""
    gated: bool = False
    """Take the calibration's thresholds for probabilities after normal gating."""
    sensitivity: float | None = None
    """Operating points at each class's highest threshold that reaches this sensitivity."""
    common: bool = False
    """Score the images and classes that all files have; differences are an error otherwise."""
    uncertain: Literal["ignore", "zero", "one"] = "ignore"
    """What a label of -1 means: unknown and left out, 0, or 1."""
    blank: Literal["unknown", "zero"] | None = None
    """What a blank label means: unknown, but asked where a label is more than half blank. CheXpert
    and MIMIC-CXR say so themselves: over that in --labels, not in --train_csv."""
    label_map: Path | None = None
    """CSV of label,means by which classes are found in --labels and --train_csv that have no column
    of their name there, over the map that joins those of known sources."""
    image_column: str = ""
    """Column of --labels that has the names of --predictions; found by its usual names when not
    given."""
    patient_column: str = ""
    """Column that names the patient; "none" to draw images by themselves on purpose."""
    view_column: str = ""
    """Column that --by view means; found by its usual names when not given."""
    source: str = ""
    """What kind of table --labels is; recognised by its columns when not given."""
    official_split: Literal["all", "train", "test"] = "all"
    """Of a source that names official test images: score all, or all but these, or these alone."""
    views: Literal["all", "frontal", "lateral"] = "all"
    """Score images of these views only."""
    readers: Literal["majority", "any"] = "majority"
    """Where several readers labelled an image: positive for most of them, or for any of them."""
    resamples: int = 1000
    """Bootstrap resamples of patients for the 95 % intervals; 0 leaves them out."""
    seed: int = 0
    """Seed of the resamples."""
    anonymous: bool = False
    """Write no names of images, and those of files without their folders."""
    output: Path | None = None
    """Writes OUTPUT.json and OUTPUT.csv; the first of --predictions plus "_metrics" unless
    given."""
    overwrite: bool = False
    """Replace files there that are no earlier evaluation."""

    def told(self, path: Path) -> str:
        """What is written of a file's path."""
        return path.name if self.anonymous else str(path)


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    _check(config)
    assert config.labels is not None
    # late, so that --help and a mistyped flag are answered at once
    from ensemble.score_files import output_paths, write_scores
    from ensemble.scoring import LabelSettings, read_scored

    others = (config.labels, config.train_csv, config.against, config.meta, config.label_map)
    inputs = [*config.predictions, *(path for path in others if path is not None)]
    if config.thresholds:
        inputs.append(Path(config.thresholds))
    paths = output_paths(config.output, config.predictions[0], inputs, overwrite=config.overwrite)
    files = config.predictions
    # the reference of a leaderboard may be one of its files
    if config.against is not None and config.against not in files:
        files = (*files, config.against)
    scored = read_scored(
        files,
        config.labels,
        config.train_csv,
        settings=LabelSettings(
            uncertain=config.uncertain,
            blank=config.blank,
            image_column=config.image_column or None,
            patient_column=config.patient_column or None,
            source=config.source or None,
            views=config.views,
            readers=config.readers,
            official_split=config.official_split,
            label_map=config.label_map,
        ),
        not_classes=(*config.by, config.view_column),
        common=config.common,
        resamples=config.resamples,
        seed=config.seed,
    )
    _print_sources(config, scored)
    score = _one_file if len(config.predictions) == 1 else _several_files
    found, table = score(config, scored)
    made_from = {
        "predictions": [config.told(path) for path in config.predictions],
        "labels": config.told(config.labels),
        "train_csv": None if config.train_csv is None else config.told(config.train_csv),
        "seed": config.seed,
        # they name images
        "notes": [] if config.anonymous else scored.notes,
    }
    write_scores(paths, {"made_from": made_from, **found}, table)
    print(f"\nscores       {paths[0]}, {paths[1]}")


def _check(config: Config) -> None:
    """Raise UserError for what is missing, and for flags that contradict each other."""
    if not config.predictions:
        raise UserError("no predictions are given: name their CSV with --predictions")
    if config.labels is None:
        raise UserError("no labels are given: name their CSV with --labels")
    check_not_negative(config, "resamples", "seed")
    points = bool(config.thresholds) + (config.sensitivity is not None)
    if points > 1:
        raise UserError("--thresholds and --sensitivity contradict each other: give one")
    if len(config.predictions) > 1 and (points or config.by):
        raise UserError(
            "--by, --thresholds and --sensitivity are of one file: give one of --predictions"
        )
    if config.gated and not config.thresholds:
        raise UserError("--gated chooses among the --thresholds of a calibration.json: give it")
    if config.meta is not None and not config.by:
        raise UserError("--meta has columns for --by: name those that divide the images")
    if config.view_column and "view" not in config.by:
        raise UserError("--view_column says what --by view means: add that, or leave it out")
    if config.against in config.predictions and len(config.predictions) == 1:
        raise UserError(f"--against {config.against} is the file itself: name another one")


def _print_sources(config: Config, scored: Scored) -> None:
    """What is scored, and what decides on the classes' groups."""
    from numpy import unique

    table = scored.table
    of = "without a known patient, so that images are resampled"
    if table.patients is not None:
        of = f"of {len(unique(table.patients)):,} patients"
    print(f"predictions  {', '.join(map(str, scored.files))}")
    classes = len(table.class_names)
    print(f"labels       {config.labels}: {len(table):,} images {of}, {classes} classes")
    print(f"prevalence   {config.train_csv or 'that of the scored labels (no --train_csv)'}")
    for note in table.notes:
        print(f"note         {note}")
    for note in scored.notes:
        print(f"left out     {note}")
    print()


def _one_file(config: Config, scored: Scored) -> tuple[dict[str, Any], DataFrame]:
    """Score one file, print it, and return what JSON and CSV hold of it."""
    from core.report import format_table
    from ensemble.score_files import class_table, scores_json, subgroups_json
    from ensemble.score_tables import difference_text, operating_text, subgroup_text
    from ensemble.subgroups import score_subgroups

    path, table = config.predictions[0], scored.table
    # what may be refused comes before what takes time
    groupings = _groupings(config, scored)
    points, title = _operating_points(config, scored)
    evaluation = scored.evaluate(path)
    found: dict[str, Any] = scores_json(evaluation)
    print(format_table(evaluation))
    order = evaluation.per_class.sort_values("prevalence", ascending=False).index.tolist()
    if points is not None:
        print(f"\n{operating_text(points, title, order)}")
        found["operating_points"] = {"at": title, "per_class": points}
    difference = None
    if config.against is not None:
        difference = scored.difference(path, config.against)
        print(f"\n{difference_text(difference, path, config.against, order)}")
        found["difference"] = {"against": config.told(config.against), **scores_json(difference)}
    for grouping in groupings:
        scores = score_subgroups(
            grouping,
            table.targets,
            scored.files[path],
            table.class_names,
            evaluation.per_class["prevalence"],
            table.patients,
            config.resamples,
            config.seed,
        )
        print(f"\n{subgroup_text(scores)}")
        found.setdefault("subgroups", {})[grouping.name] = subgroups_json(scores)
    return found, class_table(evaluation, points, difference)


def _groupings(config: Config, scored: Scored) -> list[Grouping]:
    from ensemble.subgroups import read_groupings

    if not config.by:
        return []
    assert config.labels is not None
    return read_groupings(
        config.by,
        scored.table.ids,
        config.labels,
        scored.table.id_column,
        config.meta,
        config.view_column or None,
        sheet=scored.sheet,
    )


def _operating_points(config: Config, scored: Scored) -> tuple[DataFrame | None, str]:
    """The table of operating points that is asked for, and where they are, in words."""
    from ensemble.operating import at_sensitivity, at_thresholds, read_thresholds

    table, probabilities = scored.table, scored.files[config.predictions[0]]
    data = table.targets, probabilities, table.class_names
    how = table.patients, config.resamples, config.seed
    if config.sensitivity is not None:
        title = f"the highest threshold of sensitivity {config.sensitivity:g}"
        return at_sensitivity(*data, config.sensitivity, *how), title
    if config.thresholds:
        thresholds = read_thresholds(config.thresholds, table.class_names, gated=config.gated)
        title = f"threshold {config.thresholds}"
        return at_thresholds(*data, thresholds, *how), title
    return None, ""


def _several_files(config: Config, scored: Scored) -> tuple[dict[str, Any], DataFrame]:
    """Score several files, print who is better, and return what JSON and CSV hold of it."""
    from ensemble.score_files import leaderboard_json, leaderboard_table
    from ensemble.score_tables import leaderboard_text
    from ensemble.scoring import leaderboard

    reference = config.against or config.predictions[0]
    entries = leaderboard(scored, reference)
    print(leaderboard_text(entries))
    names = [config.told(one.path) for one in entries]
    found = {
        "reference": config.told(reference),
        "leaderboard": leaderboard_json(entries, names),
    }
    return found, leaderboard_table(entries, names)


if __name__ == "__main__":
    run(main)
