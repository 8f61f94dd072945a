"""Score predictions: metrics with intervals as a table, a JSON and a CSV.

    python -m ensemble.evaluate outputs/a outputs/b
    python -m ensemble.evaluate --predictions p.csv --labels l.csv --train_csv train.csv
    python -m ensemble.evaluate --predictions p.csv --labels l.csv --against q.csv
    python -m ensemble.evaluate --predictions a.csv b.csv c.csv --labels l.csv

Several files or runs give a leaderboard. A run folder is scored by the out-of-fold predictions of
its finished folds and its own labels; several runs on the images that all of them predicted. Images
and classes are matched by name. --report adds a page with pictures.

Coverage of the 95 % intervals in 1,000 simulated data sets: docs/coverage.md. With too few
positive patients no interval is printed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.command_line import flags, run
from core.runtime.log import logger
from ensemble.scoring.config import Config, check

if TYPE_CHECKING:  # imported late for a fast --help
    from pandas import DataFrame

    from ensemble.fitting.out_of_fold import Run
    from ensemble.scoring.page import Outcome
    from ensemble.scoring.score import Scored


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.predictions = (*config.runs, *config.predictions)
    check(config)
    # imported late for a fast --help
    from core.report.page import render
    from ensemble.fitting.out_of_fold import describe_folds
    from ensemble.scoring.comparison import short_names
    from ensemble.scoring.outputs import write_scores
    from ensemble.scoring.page import add_images, make_page

    scored, runs, paths = _read(config)
    if config.image_dir is not None:
        scored = add_images(scored, config.image_dir)
    folds = describe_folds(runs, anonymous=config.anonymous) if runs else None
    _print_sources(config, scored, folds)
    overlap = scored.overlap.tables(short_names([*scored.files], anonymous=config.anonymous))
    for one in overlap:
        logger.info(f"\n{one.heading}:\n{one.as_text()}")
    score = _one_file if len(config.predictions) == 1 else _several_files
    outcome = score(config, scored)
    made_from = {
        "predictions": [config.shown_path(path) for path in config.predictions],
        "folds": folds,
        "labels": None if config.labels is None else config.shown_path(config.labels),
        "train_csv": None if config.train_csv is None else config.shown_path(config.train_csv),
        "against": None if config.against is None else config.shown_path(config.against),
        "seed": config.seed,
        # notes have names of images
        "notes": [] if config.anonymous else scored.notes,
    }
    page = None
    if config.report:
        contents = make_page(config, scored, outcome, made_from)
        page = render(replace(contents, sections=[*overlap, *contents.sections]))
    shared = scored.overlap.as_json(
        {path: config.shown_path(path) for path in scored.files},
        train_csv=config.train_csv is not None,
    )
    found = {"made_from": made_from, "training_overlap": shared, **outcome.found}
    write_scores(paths, found, outcome.csv, page)
    logger.info(f"\nscores       {paths[0]}, {paths[1]}")
    if page is not None:
        logger.info(f"report       {paths[2]}")


def _read(config: Config) -> tuple[Scored, list[Run], tuple[Path, ...]]:
    """Read predictions and labels; also returns the runs among them and the output paths."""
    from ensemble.fitting.out_of_fold import read_files_and_runs
    from ensemble.fitting.run_labels import read_own_labels
    from ensemble.scoring.outputs import output_paths
    from ensemble.scoring.score import labels_beside, read_scored

    own, first, files = config.labels is None, config.predictions[0], config.predictions
    # the reference may be one of the files of a leaderboard
    if config.against is not None and config.against not in files:
        files = (*files, config.against)
    tables, runs = read_files_and_runs(files)
    config.labels = config.labels or labels_beside(runs[0].path if runs else first)
    others = (config.labels, config.train_csv, config.meta, config.reading.label_map)
    thresholds = Path(config.thresholds) if config.thresholds else None
    inputs = [*files, *filter(None, (*others, thresholds)), *(f for run in runs for f in run.files)]
    endings = (".json", ".csv", *([".html"] if config.report else []))
    paths = output_paths(
        config.output, config.predictions, inputs, endings, overwrite=config.overwrite
    )
    if own and len(runs) > 1:
        # refuses runs with different labels
        read_own_labels(runs)
    scored = read_scored(
        tables,
        config.labels,
        config.train_csv,
        reading=config.reading,
        own=own,
        not_classes=(*config.by, config.reading.view_column),
        common=config.common,
        common_images=bool(runs),
        resamples=config.resamples,
        seed=config.seed,
    )
    return scored, runs, paths


def _print_sources(config: Config, scored: Scored, folds: str | None) -> None:
    """Print the sources of predictions, labels and prevalences, and notes."""
    from ensemble.scoring.score import describe

    logger.info(f"predictions  {', '.join(map(str, scored.files))}")
    if folds:
        logger.info(f"folds        {folds}")
    logger.info(f"labels       {config.labels}: {describe(scored.table)}")
    logger.info(f"prevalence   {config.train_csv or 'that of the scored labels (no --train_csv)'}")
    for note in scored.table.notes:
        logger.info(f"note         {note}")
    for note in scored.notes:
        logger.info(f"left out     {note}")


def _one_file(config: Config, scored: Scored) -> Outcome:
    """Score and print one file; returns the contents of the output files."""
    from core.report.plots.style import by_prevalence
    from core.report.tables import format_table, source_tables
    from ensemble.scoring import tables
    from ensemble.scoring.comparison import Entry, compare_files, short_names
    from ensemble.scoring.outputs import class_csv, scores_json, subgroups_json
    from ensemble.scoring.page import Outcome
    from ensemble.scoring.subgroups import read_groupings, score_sources, score_subgroups

    path = config.predictions[0]
    # checks first, long computations later
    view, shown = config.reading.view_column, config.shown_path
    groupings = read_groupings(config.by, scored.table, scored.sheet, config.meta, view, shown)
    points, title = _operating_points(config, scored)
    names = short_names(list(scored.files), anonymous=config.anonymous)
    if config.against is None:
        entries = [Entry(path, names[path], scored.evaluate(path))]
    else:
        entries = compare_files(scored, config.against, names)
    evaluation, difference = entries[0].evaluation, entries[0].difference
    found: dict[str, Any] = scores_json(evaluation)
    sections, beside = [], []
    if points is not None:
        order = by_prevalence(evaluation.per_class).index.tolist()
        sections.append(tables.operating_table(points, title, order))
        found["operating_points"] = {"at": title, "per_class": points}
    if config.against is not None and difference is not None and entries[0].compared is not None:
        beside = [tables.leaderboard_table(entries), tables.classes_table(entries)]
        found["difference"] = {
            "against": config.shown_path(config.against),
            **scores_json(difference),
        }
        found["compared"] = entries[0].compared.as_json()
    shares = evaluation.per_class["prevalence"].to_numpy()
    within = score_sources(scored, path, shares)
    sections += source_tables(evaluation, within)
    if within:
        found["sources"] = {name: scores_json(one) for name, one in within.items()}
    for grouping in groupings:
        scores = score_subgroups(grouping, replace(scored, prevalence=shares), path)
        sections.append(tables.subgroup_table(scores))
        found.setdefault("subgroups", {})[grouping.name] = subgroups_json(scores)
    logger.info(f"\n{format_table(evaluation)}")
    for one in (*beside, *sections):
        logger.info(f"\n{one.heading}:\n{one.as_text()}")
    return Outcome(found, class_csv(evaluation, points, difference), entries, sections)


def _operating_points(config: Config, scored: Scored) -> tuple[DataFrame | None, str]:
    """Requested operating points, and a title for them; (None, "") without."""
    from ensemble.scoring.operating_points import TargetPoint, operating_points, read_thresholds

    table, probabilities = scored.table, scored.files[config.predictions[0]]
    data = table.targets, probabilities, table.class_names
    at: Any = None
    if config.thresholds:
        at = read_thresholds(config.thresholds, table.class_names, gated=config.gated)
        title = f"threshold {config.shown_path(Path(config.thresholds))}"
    for point in ("sensitivity", "specificity"):
        if (least := getattr(config, point)) is not None:
            at = TargetPoint(point, least)
            title = str(at)
    if at is None:
        return None, ""
    return operating_points(*data, at, table.patients, intervals=config.resamples > 0), title


def _several_files(config: Config, scored: Scored) -> Outcome:
    """Score several files and print the leaderboard; returns the contents of the output files."""
    from ensemble.scoring.comparison import compare_files, short_names, sort_by_map
    from ensemble.scoring.outputs import leaderboard_csv, leaderboard_json
    from ensemble.scoring.page import Outcome
    from ensemble.scoring.tables import leaderboard_table

    reference = config.against or config.predictions[0]
    labels = short_names(list(scored.files), anonymous=config.anonymous)
    entries = sort_by_map(compare_files(scored, reference, labels))
    logger.info(f"\n{leaderboard_table(entries).as_text()}")
    names = [config.shown_path(one.path) for one in entries]
    leaderboard = leaderboard_json(entries, names)
    found = {"reference": config.shown_path(reference), "leaderboard": leaderboard}
    return Outcome(found, leaderboard_csv(entries, names), entries, [])


if __name__ == "__main__":
    run(main)
