"""Tables of an evaluation for terminal and page, in addition to those of `core.report`."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from core.errors import list_first, pluralize
from core.metrics import Evaluation
from core.metrics.intervals import LEAST_IN_MEANS
from core.report.plots.style import GROUP_LABELS, by_prevalence, shorten
from core.report.tables import (
    GROUP,
    SHOWN_NAMES,
    SUMMARY_ROWS,
    Table,
    format_with_interval,
    known_label_notes,
    number,
)
from ensemble.scoring.comparison import MEANS, Compared, Entry
from ensemble.scoring.operating_points import POINTS
from ensemble.scoring.subgroups import SubgroupScores

# marks a mean and an interval over fewer classes
STAR = "*"


def operating_table(points: pd.DataFrame, title: str, order: Sequence[str]) -> Table:
    """Operating points, from `operating_points`, one row a class, in the given order."""
    names = ("Sensitivity", "Specificity", "PPV", "NPV")
    columns, notes = ["Class", "Positives", "Threshold", *names], []
    other = next(
        (name[:-4] for name in points.columns if "_at_" in name and name.endswith("_low")), None
    )
    if other:
        columns.append(other.replace("_", " ").capitalize())
        notes = [
            "Intervals of a point are those of the printed threshold, on other patients. That of "
            "the threshold is its variation from sample to sample, and the last column the other "
            "point where the chosen one is reached exactly."
        ]
    rows = []
    for name, row in points.loc[list(order)].iterrows():
        bounds = (row.get("threshold_low"), row.get("threshold_high"))
        cells = [
            number(row["threshold"], bounds),
            *(format_with_interval(row, one) for one in POINTS),
        ]
        if other:
            low, high = (row[f"{other}{end}"] for end in ("_low", "_high"))
            cells.append("-" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]")
        rows.append([shorten(name), f"{row['positives']:,.0f}", *cells])
    return Table(f"Operating points at {title}", tuple(columns), rows, tuple(notes))


def leaderboard_table(entries: Sequence[Entry]) -> Table:
    """One row a file, in the given order, with the number of classes beside the name of a mean.

    If differences are over fewer classes than the means, the means over these are added.
    """
    compared = next(one.compared for one in entries if one.compared is not None)
    summary, table = entries[0].evaluation.summary, entries[0].evaluation.per_class
    every, tail = summary["classes_scored"], summary["group_classes"]["tail"]
    counts = {"mAP": every, "mAUROC": every}
    counts |= ({"mAP_tail": tail} if tail else {}) | {"ECE": (table["n"] > 0).sum()}
    again = list(MEANS) if compared.left_out else []
    words = [*again, *(f"{name} difference" for name in MEANS)]
    names = {"mAP_tail": SUMMARY_ROWS["mAP_tail"]}
    columns = (
        *("File", *(f"{names.get(metric, metric)} ({count})" for metric, count in counts.items())),
        *(f"{word} ({len(compared.classes)})" for word in words),
    )
    rows = []
    for one in entries:
        cells = [number(one.evaluation.summary[metric]) for metric in counts]
        means, key = (one.compared or compared).means, "file" if one.compared else "reference"
        cells += [number(means[name][key]) for name in again]
        rows.append([one.label, *cells, *(_difference(one.compared, name) for name in MEANS)])
    reference = next(one.label for one in entries if one.compared is None)
    notes = _leaderboard_notes(entries[0].evaluation, reference, compared)
    return Table("Files beside each other", columns, rows, tuple(notes))


def _difference(compared: Compared | None, name: str) -> str:
    if compared is None:
        return "reference"
    mean = compared.means[name]
    return number(mean["difference"], mean["interval"] or (None, None), "+")


def _leaderboard_notes(scores: Evaluation, reference: str, compared: Compared) -> list[str]:
    """Notes on the leaderboard."""
    notes = ["Beside the name of a mean: the number of its classes.", *known_label_notes(scores)]
    summary = scores.summary
    if summary["unscored"]:
        notes.append(
            f"Classes that cannot be scored: {list_first(summary['unscored'], SHOWN_NAMES)}."
        )
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        notes.append(f"Intervals: 95 %, by a jackknife over {units}, the same for all files.")
    notes.append(f"Differences: the file minus {reference}; above 0 the file is better.")
    if compared.left_out:
        notes.append(
            "Differences, and the means beside them, are over the "
            f"{pluralize(len(compared.classes), 'class', 'classes')} with at least "
            f"{LEAST_IN_MEANS} positive patients, as their intervals are, without "
            f"{list_first(compared.left_out, SHOWN_NAMES)}."
        )
    return notes


def classes_table(entries: Sequence[Entry]) -> Table:
    """One row a class with its AP in each file; for two files also AUROC and differences."""
    if len(entries) == 2:
        return _differences_table(*sorted(entries, key=lambda one: one.difference is None))
    rows = []
    for name, row in by_prevalence(entries[0].evaluation.per_class).iterrows():
        cells = [number(one.evaluation.per_class["ap"][str(name)]) for one in entries]
        rows.append([shorten(name), GROUP_LABELS[row["group"]], f"{row['positives']:,}", *cells])
    columns = ("Class", GROUP, "Positives", *(f"AP {one.label}" for one in entries))
    return Table("AP of each class in each file", columns, rows)


def _differences_table(file: Entry, reference: Entry) -> Table:
    """Two files and their difference, one row a class."""
    assert file.difference is not None
    order = by_prevalence(file.evaluation.per_class).index
    rows = []
    for name, difference in file.difference.per_class.loc[order].iterrows():
        cells = []
        for column in MEANS.values():
            both = (one.evaluation.per_class[column][str(name)] for one in (file, reference))
            cells += [*map(number, both), format_with_interval(difference, column, "+")]
        rows.append([shorten(name), *cells])
    columns = chain.from_iterable((name[1:], "other", "difference") for name in MEANS)
    heading = f"Differences, {file.label} minus {reference.label} (other)"
    return Table(heading, ("Class", *columns), rows)


def subgroup_table(scores: SubgroupScores) -> Table:
    """One row a subgroup, with means over the compared classes."""
    rows = []
    for name, subgroup in scores.subgroups.items():
        summary = subgroup.own.summary
        patients = "-" if summary["patients"] is None else f"{summary['patients']:,}"
        cells = ["-"] * 2
        if subgroup.compared is not None:
            found = subgroup.compared.summary
            # an interval over fewer classes would not be comparable
            bounds = found["intervals"].get("mAUROC", (None, None))
            bounds = (None, None) if found.get("too_rare_for_intervals") else bounds
            cells = [number(found["mAUROC"], bounds), number(subgroup.equal_map)]
        counts = [f"{summary['images']:,}", patients, f"{summary['classes_scored']}"]
        rows.append([shorten(name), *counts, *cells])
    columns = (scores.grouping.name, "Images", "Patients", "Classes scored", "mAUROC", "mAP*")
    heading = f"By {scores.grouping.name} ({scores.grouping.source})"
    return Table(heading, columns, rows, tuple(_subgroup_notes(scores)))


def _subgroup_notes(scores: SubgroupScores) -> list[str]:
    """Notes on the means of subgroups."""
    names, notes = scores.compared_classes, []
    if names:
        everything = next(iter(scores.subgroups.values())).own.per_class.index
        others = [name for name in everything if name not in names]
        without = f", without {list_first(others, SHOWN_NAMES)}" if others else ""
        notes.append(
            f"Means are over the {pluralize(len(names), 'class', 'classes')} by which subgroups "
            f"can be compared{without}, and have an interval where each of these has at least "
            f"{LEAST_IN_MEANS} positive patients. mAP*: at as many positives and negatives of a "
            "class as the smallest subgroup has, as AP grows with their share and is too high for "
            "few."
        )
    if any(subgroup.compared is None for subgroup in scores.subgroups.values()):
        notes.append(
            "A subgroup without means cannot score all of these; its own are in the JSON file."
            if names
            else "Subgroups have no class in common to compare them; own means are in the JSON."
        )
    return notes


def mean_with_interval(summary: Mapping[str, Any], metric: str, sign: str = "") -> str:
    """Format a mean with its interval.

    If the interval is over fewer classes, the mean over these is added with a star.
    """
    interval = summary["intervals"].get(metric)
    if interval is None:
        return number(summary[metric], sign=sign)
    own = number(summary["interval_points"][metric], interval, sign, summary["corrected"][metric])
    rare = summary["too_rare_for_intervals"]
    return f"{number(summary[metric], sign=sign)} {STAR}{own}" if rare else own


def star_note(summary: Mapping[str, Any]) -> str:
    """Note on the classes of a mean and an interval with a star; empty without a star."""
    rare = summary["too_rare_for_intervals"] if summary["intervals"] else []
    over = pluralize(summary.get("classes_in_intervals", 0), "class", "classes")
    note = f"{STAR} mean and interval over the {over} with at least {LEAST_IN_MEANS} "
    return f"{note}positive patients, without {list_first(rare, SHOWN_NAMES)}." if rare else ""
