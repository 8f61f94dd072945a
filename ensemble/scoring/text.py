"""What an evaluation says in the terminal, beside the table of `core.report`."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import counted, some
from core.metrics import PairedDifference
from core.metrics.bootstrap import MIN_POSITIVE_PATIENTS
from core.report.plots import shorten
from core.report.tables import SHOWN_NAMES, number
from ensemble.scoring.comparison import MEANS, Compared, compare, describe_classes
from ensemble.scoring.operating_points import POINTS
from ensemble.scoring.score import Entry
from ensemble.scoring.subgroups import SubgroupScores

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
    difference: PairedDifference, entries: Sequence[Entry], order: Sequence[str]
) -> str:
    """A paired difference of two files beside both: one line a class in this order, then the means.

    entries: the file, and the one that is taken from it.
    """
    first, second = (one.evaluation for one in entries)
    rows = [
        ["class", *(word for name in ("AP", "AUROC") for word in (name, "other", "difference"))]
    ]
    for name, row in difference.per_class.loc[list(order)].iterrows():
        cells = []
        for key in MEANS.values():
            cells += [number(one.per_class[key][str(name)]) for one in (first, second)]
            cells.append(number(row[key], (row.get(f"{key}_low"), row.get(f"{key}_high")), "+"))
        rows.append([shorten(name), *cells])
    compared = compare(first, second, difference)
    means = []
    for name in MEANS:
        means += [number(compared.file[name]), number(compared.reference[name])]
        means.append(_difference(compared, name))
    rows.append([f"mean of {counted(len(compared.classes), 'class', 'classes')}", *means])
    title = f"Differences, {entries[0].path} minus {entries[1].path} (other):"
    note = _fill(f"Means and their differences are over the {describe_classes(compared)}.")
    return "\n".join([title, _aligned(rows), note])


def leaderboard_text(entries: Sequence[Entry]) -> str:
    """One line a file, in the order given."""
    return "\n".join([_aligned(leaderboard_rows(entries)), *map(_fill, leaderboard_notes(entries))])


def leaderboard_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """Their cells, under a row of headings with the number of classes in brackets.

    Where differences are over fewer classes than the means, the means over these come again.
    """
    metrics, (compared, of_files) = (*MEANS, "mAP_tail", "ECE"), _compared(entries)
    summary, table = entries[0].evaluation.summary, entries[0].evaluation.per_class
    every, tail = summary["classes_scored"], summary["group_classes"]["tail"]
    counts = (every, every, tail, (table["n"] > 0).sum())
    heads = [f"{m.replace('_', ' ')} ({n})" for m, n in zip(metrics, counts, strict=True)]
    again = list(MEANS) if compared.left_out else []
    words = [*again, *(f"{name} difference" for name in MEANS)]
    rows = [["file", *heads, *(f"{word} ({len(compared.classes)})" for word in words)]]
    for one in entries:
        cells = [number(one.evaluation.summary[metric]) for metric in metrics]
        own = of_files.get(one.path)
        means = compared.reference if own is None else own.file
        cells += [number(means[name]) for name in again]
        cells += ["reference" if own is None else _difference(own, name) for name in MEANS]
        rows.append([one.label, *cells])
    return rows


def leaderboard_notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know of these numbers."""
    compared, _ = _compared(entries)
    summary = entries[0].evaluation.summary
    reference = next(one.label for one in entries if one.difference is None)
    lines = ["Beside the name of a mean: the number of its classes."]
    if summary["unscored"]:
        lines.append(f"Classes that cannot be scored: {some(summary['unscored'], SHOWN_NAMES)}.")
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        lines.append(
            f"Intervals: 95 %, {summary['resamples']:,} bootstrap resamples of {units}, the same "
            "for all files."
        )
    lines.append(f"Differences: the file minus {reference}; above 0 the file is better.")
    if compared.left_out:
        lines.append(
            f"Differences, and the means beside them, are over the {describe_classes(compared)}."
        )
    return lines


def _compared(entries: Sequence[Entry]) -> tuple[Compared, dict[Path, Compared]]:
    """Each file but the reference beside it, by path, and any one of these first."""
    reference = next(one.evaluation for one in entries if one.difference is None)
    found = {
        one.path: compare(one.evaluation, reference, one.difference)
        for one in entries
        if one.difference is not None
    }
    return next(iter(found.values())), found


def _difference(compared: Compared, name: str) -> str:
    return number(compared.difference[name], compared.intervals.get(name, (None, None)), "+")


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
    for name, subgroup in scores.subgroups.items():
        summary = {} if subgroup.compared is None else subgroup.compared.summary
        if summary.get("intervals") and (rare := summary["too_rare_for_intervals"]):
            over = counted(summary["classes_in_intervals"], "class", "classes")
            notes.append(
                f"{STAR} {shorten(name)}: mean and interval over the {over} with at least "
                f"{MIN_POSITIVE_PATIENTS} positive patients in the subgroup, without "
                f"{some(rare, SHOWN_NAMES)}."
            )
    return list(map(_fill, notes))


def _compared_mean(summary: Mapping[str, Any], metric: str) -> str:
    """A mean with its interval; with a star and a mean of their own where that is of fewer classes.

    A mean never stands beside an interval that is not its own.
    """
    interval = summary["intervals"].get(metric)
    if interval is None:
        return number(summary[metric])
    point = summary["interval_points"][metric]
    if not summary["too_rare_for_intervals"]:
        return number(point, interval)
    return f"{number(summary[metric])} {STAR}{number(point, interval)}"


def _fill(note: str) -> str:
    return textwrap.fill(note, 100, subsequent_indent="  ")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells under the first one, a rule between; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *others]).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
