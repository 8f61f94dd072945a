"""Tables of a report and of the terminal: summary, classes, folds, sources, notes."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd

from core.errors import list_first
from core.metrics import Evaluation
from core.metrics.ap_auroc import column_mean
from core.metrics.evaluation import GROUPS
from core.metrics.intervals import LEAST_IN_MEANS, LEAST_PATIENTS
from core.report.plots.style import GROUP_LABELS, by_prevalence, shorten

# key of each measure in the summary, and its label
SUMMARY_ROWS = {
    "mAP": "mAP",
    **{f"mAP_{group}": f"mAP, {GROUP_LABELS[group]}" for group in (*GROUPS, "extreme")},
    "mAUROC": "mAUROC",
    "mF1": "mF1 at 0.5",
    "mF1_fitted": "mF1, own thresholds (optimistic)",
    "micro_AP": "micro AP",
    "ECE": "ECE, mean over classes",
    "ECE_flat": "ECE, flattened",
    "RMSCE": "RMS calibration error",
    "RMSCE_flat": "RMS calibration error, flat",
    "Brier": "Brier, mean over classes",
}
# means of a source over the same classes, and their columns
SOURCE_MEANS = {"mAP": "ap", "mAUROC": "auroc", "ECE": "ece", "Brier": "brier"}
# measures of a fold, or of one of several files
SHORT_ROWS = ("mAP", "mAP_head", "mAP_medium", "mAP_tail", "mAUROC", "ECE", "Brier")
# maximum number of class names in a sentence
SHOWN_NAMES = 20
GROUP, INTERVAL = "Group", "95 % interval"
# bias of a value, as a fraction of the interval's width, above which it is shown
CLEAR = 0.1
# text columns; all others are numbers
_TEXTS = (GROUP, INTERVAL)
CLASS_COLUMNS = ("Class", GROUP, "Positives", "AP", "AUROC", "F1 at 0.5", "ECE")


@dataclass(frozen=True)
class Table:
    """Table of text cells, for a page or a terminal; the first cell of a row is its name."""

    heading: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    sortable: bool = True

    def is_number(self, column: int) -> bool:
        """Whether the column is right-aligned."""
        return column > 0 and self.columns[column] not in _TEXTS

    def as_text(self) -> str:
        """Format the table for a terminal, with notes and without heading."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        marks = [">" if self.is_number(place) else "<" for place in range(len(widths))]
        form = "  ".join(f"{{:{mark}{width}}}" for mark, width in zip(marks, widths, strict=True))
        head, *body = [form.format(*cells).rstrip() for cells in lines]
        rule = "-" * max(map(len, (head, *body)))
        notes = [textwrap.fill(note, 100, subsequent_indent="  ") for note in self.notes]
        return "\n".join([head, rule, *body, *notes])


def lead_sentence(evaluation: Evaluation) -> str:
    """Number of images, patients and classes, on one line."""
    summary = evaluation.summary
    patients = f", {summary['patients']:,} patients" if summary["patients"] else ""
    classes = f"{summary['classes']} classes, {summary['classes_scored']} of them scored"
    return f"{summary['images']:,} images{patients}, {classes}"


def summary_table(evaluation: Evaluation) -> Table:
    """Table of means, with notes."""
    summary = evaluation.summary
    rows = []
    for metric, label in SUMMARY_ROWS.items():
        group = metric.removeprefix("mAP_")
        classes = summary["group_classes"].get(group, summary["classes_scored"])
        if metric not in summary or (not classes and group != metric):
            continue
        per_class, interval = metric.startswith(("mAP", "mAUROC", "mF1")), ""
        if metric in summary["intervals"]:
            low, high = summary["intervals"][metric]
            interval = f"[{low:.3f}, {high:.3f}]"
            point, corrected = summary["interval_points"][metric], summary["corrected"][metric]
            if abs(point - corrected) > CLEAR * (high - low):
                interval = f"({corrected:.3f}) {interval}"
            count = summary["interval_classes"][metric]
            if per_class and count != classes:
                interval = f"without the rarest: {point:.3f} {interval} (over {count})"
        rows.append([label, f"{classes}" if per_class else "", number(summary[metric]), interval])
    columns = ("Measure", "Classes", "Value", INTERVAL)
    return Table("Summary", columns, rows, tuple(_notes(evaluation)), sortable=False)


def class_table(evaluation: Evaluation, columns: tuple[str, ...] = CLASS_COLUMNS) -> Table:
    """Table with one row a class, most prevalent first, and some of CLASS_COLUMNS."""
    rows = []
    for name, row in by_prevalence(evaluation.per_class).iterrows():
        ap, auroc = (format_with_interval(row, metric) for metric in ("ap", "auroc"))
        counts = str(name), GROUP_LABELS[row["group"]], _positives(row)
        cells = (*counts, ap, auroc, number(row["f1"]), number(row["ece"]))
        every = dict(zip(CLASS_COLUMNS, cells, strict=True))
        rows.append([every[column] for column in columns])
    return Table("Classes", columns, rows)


def _positives(row: pd.Series) -> str:
    """Positive images of a class, with their patients where these are fewer: "60 (6)"."""
    patients = row.get("positive_patients", row["positives"])
    return f"{row['positives']:,}" + (f" ({patients:,})" if 0 < patients < row["positives"] else "")


def fold_tables(pooled: Evaluation, folds: Mapping[int, Evaluation]) -> list[Table]:
    """Tables of each fold: means, and AP of each class; [] for a single fold."""
    named = {f"fold {fold}": one for fold, one in folds.items()} | {"all together": pooled}
    note = (
        "Each fold has its own model, scored on images that it was not trained on. A mean is over "
        "the classes scored in that fold, so that folds with other rare classes have other means."
    )
    classes = []
    for label, row in by_prevalence(pooled.per_class).iterrows():
        aps = [number(one.per_class["ap"][str(label)]) for one in named.values()]
        classes.append([str(label), GROUP_LABELS[row["group"]], f"{row['positives']:,}", *aps])
    columns = ("Class", GROUP, "Positives", *named)
    tables = (
        _means_of("Fold", pooled, named, note),
        Table("AP of each class by fold", columns, classes),
    )
    return list(tables) if len(folds) > 1 else []


def source_tables(pooled: Evaluation, sources: Mapping[str, Evaluation]) -> list[Table]:
    """Tables of each source: means, AUROC and known labels of each class; [] for one source."""
    named = dict(sources) | {"all together": pooled}
    classes = []
    for label in map(str, by_prevalence(pooled.per_class).index):
        rows = {name: one.per_class.loc[label] for name, one in named.items()}
        known = [f"{row['n'] / named[name].summary['images']:.0%}" for name, row in rows.items()]
        aurocs = [number(one.per_class["auroc"][label]) for one in named.values()]
        classes.append([label, *chain(*zip(aurocs, known, strict=True))])
    columns = ("Class", *chain(*((f"AUROC, {name}", "known") for name in named)))
    table = Table("AUROC and known labels of each class by source", columns, classes)
    return [_source_means(pooled, named), table] if len(sources) > 1 else []


def _source_means(pooled: Evaluation, named: Mapping[str, Evaluation]) -> Table:
    """Table of means over the same classes: those scored by each source with at least half."""
    scored = {name: one.per_class["ap"].notna() for name, one in named.items()}
    half = pooled.summary["classes_scored"] / 2
    able = [name for name, known in scored.items() if known.sum() and known.sum() >= half]
    common = np.logical_and.reduce([scored[name] for name in able or named])
    rows = []
    for name, one in named.items():
        means = (column_mean(one.per_class[column][common]) for column in SOURCE_MEANS.values())
        cells = [number(mean) for mean in means] if name in able else ["-"] * len(SOURCE_MEANS)
        rows.append([name, f"{one.summary['images']:,}", *cells])
    left_out = [str(name) for name in pooled.per_class.index[scored["all together"] & ~common]]
    note = "Where sources differ in prevalence, scores of all together partly measure how well "
    note += "sources are distinguished; scores within a source do not."
    notes = [note, f"Means are over the {np.sum(common)} classes that can be scored in each source"]
    notes[1] += f", without {list_first(left_out, SHOWN_NAMES)}." if left_out else "."
    columns = ("Source", "Images", *SOURCE_MEANS)
    return Table("Sources", columns, rows, tuple(notes), sortable=False)


def _means_of(what: str, pooled: Evaluation, named: Mapping[str, Evaluation], note: str) -> Table:
    """Table of means with one row for each part of the images."""
    shown = [name for name in SHORT_ROWS if not np.isnan(pooled.summary[name])]
    rows = []
    for name, one in named.items():
        counts = f"{one.summary['images']:,}", f"{one.summary['classes_scored']}"
        rows.append([name, *counts, *(number(one.summary[metric]) for metric in shown)])
    means = (SUMMARY_ROWS[name] if name.startswith("mAP_") else name for name in shown)
    columns = (what, "Images", "Classes scored", *means)
    return Table(f"{what}s", columns, rows, (note,), sortable=False)


def format_table(evaluation: Evaluation) -> str:
    """Format classes and means for a terminal, at most 100 columns wide."""
    classes = class_table(evaluation, ("Class", "Positives", "AP", "AUROC", GROUP))
    # short labels ("head > 10 %") leave room for the intervals
    narrow = str.maketrans("", "", "()")
    rows = [
        [shorten(name), *cells, group.replace(" classes", "").translate(narrow)]
        for name, *cells, group in classes.rows
    ]
    tables = replace(classes, rows=rows), summary_table(evaluation)
    return "\n\n".join(table.as_text() for table in tables)


def number(
    value: float,
    bounds: tuple[float | None, float | None] = (None, None),
    sign: str = "",
    corrected: float | None = None,
) -> str:
    """ "0.812 [0.790, 0.833]", without an interval if there is none, "-" for NaN.

    The bias-corrected value follows in brackets if it differs by a tenth of the interval's width.
    """
    if np.isnan(value):
        return "-"
    text, (low, high) = f"{value:{sign}.3f}", bounds
    if low is None or high is None or np.isnan(low):
        return text
    if corrected is not None and abs(value - corrected) > CLEAR * (high - low):
        text += f" ({corrected:{sign}.3f})"
    return f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def format_with_interval(row: pd.Series, name: str, sign: str = "") -> str:
    """Format a value of a class with its interval in ..._low and ..._high, if any."""
    bounds = row.get(f"{name}_low"), row.get(f"{name}_high")
    return number(row[name], bounds, sign, row.get(f"{name}_corrected"))


def known_label_notes(evaluation: Evaluation) -> list[str]:
    """Note on the fraction of known labels; [] if all are known."""
    known = evaluation.per_class["n"] / evaluation.summary["images"]
    if known.min() == 1:
        return []
    return [
        f"Scores are of images with a known label, {known.mean():.0%} on average (fewest: "
        f"{known.idxmin()}, {known.min():.0%}). If labels are not missing at random, scores on "
        "other images may differ."
    ]


def _notes(evaluation: Evaluation) -> list[str]:
    """Notes on how the numbers were computed."""
    summary = evaluation.summary
    trained = summary["prevalence_from"] == "training"
    notes = [f"Groups by the prevalence in the {'training data' if trained else 'scored table'}."]
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        note = (
            f"Intervals: 95 %, by a jackknife over {units}; of a class with at least "
            f"{LEAST_PATIENTS['ap']} patients (AUROC: {LEAST_PATIENTS['auroc']}) with a positive "
            "label, shown in brackets where they have several, and as many with a negative one; of "
            f"a mean over the {summary['classes_in_intervals']} classes with at least "
            f"{LEAST_IN_MEANS}"
        )
        rare = list_first(summary["too_rare_for_intervals"], SHOWN_NAMES)
        notes.append(f"{note}, without {rare}." if rare else f"{note}.")
        if "mAP" not in summary["intervals"] and summary["classes_in_intervals"] > 1:
            notes.append(
                "mAP has no interval: too many classes have nearly that many, so that chance "
                "decides which are included."
            )
        notes.append(
            "RMS calibration errors are corrected for chance, ECE is not. In brackets: the value "
            "minus its bias, if that exceeds a tenth of the interval."
        )
    notes += known_label_notes(evaluation)
    if summary["unscored"]:
        names = list_first(summary["unscored"], SHOWN_NAMES)
        notes.append(
            "A class without positives (or without negatives) has no AP and no AUROC and is left "
            f"out of the means. Here: {names}."
        )
    return notes
