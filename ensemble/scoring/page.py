"""HTML report of an evaluation: one file in detail, or a comparison of several."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.data.images.find_files import match_images
from core.report.figures import Picture, as_pictures, draw_pictures
from core.report.page import Contents, rerun_command
from core.report.plots.classes import MOST_FILES, compared_figure
from core.report.plots.precision_recall import compared_precision_recall
from core.report.plots.reliability import compared_reliability
from core.report.tables import Table, class_table, lead_sentence, summary_table
from core.report.worst_images import WorstImages, worst_cases
from core.runtime.environment import installed
from ensemble.scoring.comparison import Entry
from ensemble.scoring.config import Config
from ensemble.scoring.score import Scored
from ensemble.scoring.tables import classes_table, leaderboard_table

_PROGRAM = ("python", "-m", "ensemble.evaluate")
_NAMED = ("longtail_cxr", "numpy", "pandas", "scikit_learn")
# as in core.report.figures, for several files
HEADINGS = {
    "compared": (
        "AP and AUROC in each file",
        "AP and AUROC of each class with 95 % intervals, one colour a file, most prevalent class "
        "on top, number of positives in brackets. The dotted line is chance for AUROC.",
    ),
    "compared_precision_recall": (
        "Precision and recall in each file",
        "Precision against recall of every scored class, one colour a file as above. The dotted "
        "line is chance, the class's prevalence.",
    ),
    "compared_reliability": (
        "Reliability of each file",
        "Observed share of positives against predicted probability, all classes pooled in 15 bins.",
    ),
}


class Outcome(NamedTuple):
    """Results for the output files."""

    found: dict[str, Any]
    """Content of the JSON."""
    csv: pd.DataFrame
    entries: list[Entry]
    """Scored files; with --against the scored file first."""
    sections: list[Table]
    """Additional tables for the page."""


def add_images(scored: Scored, folder: Path) -> Scored:
    """Add the image files, found by name below `folder` or in a pack.

    Raises UserError if one is missing.
    """
    images = match_images(scored.table.ids, folder)
    return replace(scored, table=replace(scored.table, images=images))


def make_page(
    config: Config, scored: Scored, outcome: Outcome, made_from: Mapping[str, Any]
) -> Contents:
    """Contents of the page: one file in detail (and --against), or a leaderboard."""
    facts = {
        name: ", ".join(value) if isinstance(value, list) else str(value)
        for name, value in made_from.items()
        if value not in (None, [])
    }
    if config.anonymous:
        facts["command"] = "left out (--anonymous)"
    else:
        facts["notes"] = " ".join((*scored.table.notes, *scored.notes))
    entries, sections, worst = outcome.entries, list[Table | Picture](), list[WorstImages]()
    evaluation, title = entries[0].evaluation, f"{len(entries)} files of predictions"
    if len(entries) > 1:
        sections += _beside(entries, scored)
    if len(config.predictions) == 1:
        title, probabilities = entries[0].label, scored.files[config.predictions[0]]
        pictures = draw_pictures(evaluation, scored.table.targets, probabilities)
        sections = [
            *(summary_table(evaluation), pictures[0], class_table(evaluation)),
            *(*outcome.sections, *sections, *pictures[1:]),
        ]
        if config.image_dir is not None:
            rows = np.arange(len(scored.table))
            worst = worst_cases(evaluation, scored.table, rows, probabilities)
    return Contents(
        title=f"Scores of {title}",
        lead=lead_sentence(evaluation),
        sections=sections,
        worst=worst,
        command="" if config.anonymous else rerun_command(_PROGRAM),
        facts=facts,
        environment={"python": platform.python_version()}
        | {name: version for name, version in installed().items() if name in _NAMED},
    )


def _beside(entries: Sequence[Entry], scored: Scored) -> list[Table | Picture]:
    """Comparison of files: means and differences, pictures, AP of each class."""
    drawn = {one.label: one for one in entries[:MOST_FILES]}
    tables = {name: scored.files[one.path] for name, one in drawn.items()}
    evaluation, targets = entries[0].evaluation, scored.table.targets
    figures = {
        "compared": compared_figure({name: one.evaluation for name, one in drawn.items()}),
        "compared_precision_recall": compared_precision_recall(evaluation, targets, tables),
        "compared_reliability": compared_reliability(targets, tables),
    }
    board = leaderboard_table(entries)
    if len(drawn) < len(entries):
        board = replace(board, notes=(*board.notes, f"The first {len(drawn)} of them are drawn."))
    pictures = as_pictures(figures, HEADINGS, evaluation)
    return [board, pictures[0], classes_table(entries), *pictures[1:]]
