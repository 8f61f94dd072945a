"""What an evaluation says in the terminal, beside the table of `core.report`."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core.bootstrap import MIN_POSITIVE_PATIENTS
from core.errors import some
from core.metrics import PairedDifference
from core.plots import shorten
from core.report.tables import number
from ensemble.operating import POINTS
from ensemble.scoring import Entry
from ensemble.subgroups import SubgroupScores

MEANS = ("mAP", "mAUROC")
SHOWN_NAMES = 20
# before a mean and an interval over fewer classes
STAR = "*"


def operating_text(points: pd.DataFrame, title: str, order: Sequence[str]) -> str:
    """Operating points at what `title` says, one line a class, in this order."""
    return f"Operating points at {title}:\n{_aligned(operating_rows(points, order))}"


def operating_rows(points: pd.DataFrame, order: Sequence[str]) -> list[list[str]]:
    """Their cells, under a row of headings."""
    rows = [["class", "positives", "threshold", "sensitivity", "specificity", "PPV"]]
    for name, row in points.loc[list(order)].iterrows():
        cells = [number(row[p], (row.get(f"{p}_low"), row.get(f"{p}_high"))) for p in POINTS]
        threshold = "-" if math.isnan(row["threshold"]) else f"{row['threshold']:.3g}"
        rows.append([shorten(name), f"{row['positives']:,.0f}", threshold, *cells])
    return rows


def difference_text(
    difference: PairedDifference, first: Path, second: Path, order: Sequence[str]
) -> str:
    """A paired difference: the means, then one line a class in this order."""
    rows = [["class", "AP difference", "AUROC difference"]]
    for name, row in difference.per_class.loc[list(order)].iterrows():
        bounds = [(row.get(f"{m}_low"), row.get(f"{m}_high")) for m in ("ap", "auroc")]
        cells = [number(row["ap"], bounds[0], "+"), number(row["auroc"], bounds[1], "+")]
        rows.append([shorten(name), *cells])
    rows += [["mean", *(_mean_difference(difference, metric) for metric in MEANS)]]
    return "\n".join(
        [f"Differences, {first} minus {second}:", _aligned(rows), *_rare_note(difference)]
    )


def leaderboard_text(entries: Sequence[Entry]) -> str:
    """One line a file, in the order given."""
    return "\n".join([_aligned(leaderboard_rows(entries)), *leaderboard_notes(entries)])


def leaderboard_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """Their cells, under a row of headings."""
    rows = [["file", "mAP", "mAUROC", "mAP tail", "ECE", "mAP difference", "mAUROC difference"]]
    for one in entries:
        summary = one.evaluation.summary
        cells = [number(summary[metric]) for metric in (*MEANS, "mAP_tail", "ECE")]
        if one.difference is None:
            cells += ["reference"] * len(MEANS)
        else:
            cells += [_mean_difference(one.difference, metric) for metric in MEANS]
        rows.append([one.label, *cells])
    return rows


def leaderboard_notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know of these numbers."""
    lines = []
    summary = entries[0].evaluation.summary
    if summary["unscored"]:
        lines.append(f"Classes that cannot be scored: {', '.join(summary['unscored'])}.")
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        lines.append(
            f"Intervals: 95 %, {summary['resamples']:,} bootstrap resamples of {units}, the same "
            "for all files."
        )
    paired = next(one.difference for one in entries if one.difference is not None)
    reference = next(one.label for one in entries if one.difference is None)
    lines.append(f"Differences: the file minus {reference}; above 0 the file is better.")
    return lines + _rare_note(paired)


def subgroup_text(scores: SubgroupScores) -> str:
    """One line a subgroup, with means over the classes that all of them can score."""
    rows = subgroup_rows(scores)
    title = f"By {scores.grouping.name} ({scores.grouping.source}):"
    return "\n".join([title, _aligned(rows), *subgroup_notes(scores, rows[1:])])


def subgroup_rows(scores: SubgroupScores) -> list[list[str]]:
    """Their cells, under a row of headings."""
    rows = [[scores.grouping.name, "images", "patients", "classes scored", *MEANS]]
    for name, subgroup in scores.subgroups.items():
        summary = subgroup.own.summary
        patients = "-" if summary["patients"] is None else f"{summary['patients']:,}"
        cells = ["-"] * len(MEANS)
        if subgroup.compared is not None:
            cells = [_compared_mean(subgroup.compared.summary, metric) for metric in MEANS]
        counts = [f"{summary['images']:,}", patients, f"{summary['classes_scored']}"]
        rows.append([shorten(name), *counts, *cells])
    return rows


def subgroup_notes(scores: SubgroupScores, rows: Sequence[Sequence[str]]) -> list[str]:
    """What a reader must know of the means in these rows."""
    names, notes = scores.compared_classes, []
    if names:
        everything = next(iter(scores.subgroups.values())).own.per_class.index
        others = [name for name in everything if name not in names]
        classes = f"{len(names)} class{'es' if len(names) > 1 else ''}"
        without = f", without {some(others, SHOWN_NAMES)}" if others else ""
        notes.append(f"Means are over the {classes} by which subgroups can be compared{without}.")
    if any(row[-2] == "-" for row in rows):
        notes.append(
            "A subgroup without means cannot score all of these; its own are in the JSON file."
            if names
            else "There is no class by which subgroups can be compared; own means are in the JSON."
        )
    if any(STAR in "".join(row[-2:]) for row in rows):
        notes.append(
            f"{STAR} Mean and interval over the classes with at least {MIN_POSITIVE_PATIENTS} "
            "positive patients in the subgroup."
        )
    return [textwrap.fill(note, 100, subsequent_indent="  ") for note in notes]


def _mean_difference(difference: PairedDifference, metric: str) -> str:
    """The difference over the classes of its interval; over all where there is no interval."""
    summary = difference.summary
    if metric in summary["intervals"]:
        return number(summary["interval_points"][metric], summary["intervals"][metric], "+")
    return number(summary[metric], sign="+")


def _rare_note(difference: PairedDifference) -> list[str]:
    summary = difference.summary
    rare = summary["too_rare_for_intervals"]
    if not rare or not summary["intervals"]:
        return []
    note = (
        f"Mean differences are over the {summary['classes_in_intervals']} classes with at least "
        f"{MIN_POSITIVE_PATIENTS} positive patients, as their intervals are, without "
        f"{some(rare, SHOWN_NAMES)}."
    )
    return [textwrap.fill(note, 100, subsequent_indent="  ")]


def _compared_mean(summary: Mapping[str, Any], metric: str) -> str:
    """A mean with its interval; with a star and a mean of their own where that is of fewer classes.

    A mean never stands beside an interval that is not its own.
    """
    interval = summary["intervals"].get(metric)
    if interval is None:
        return number(summary[metric])
    point = summary["interval_points"][metric]
    if point == summary[metric]:
        return number(point, interval)
    return f"{number(summary[metric])} {STAR}{number(point, interval)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells under the first one, a rule between; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *others]).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
