"""The tables of a page and of the terminal: summary, classes, folds, and what to know of them."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import some
from core.metrics import Evaluation
from core.metrics.bootstrap import MIN_POSITIVE_PATIENTS
from core.report.plots.style import by_prevalence, shorten

# name of each measure in the summary, and for the reader
SUMMARY_ROWS = {
    "mAP": "mAP",
    "mAP_head": "mAP, head",
    "mAP_medium": "mAP, medium",
    "mAP_tail": "mAP, tail",
    "mAP_extreme": "mAP, extreme tail",
    "mAUROC": "mAUROC",
    "mF1": "mF1 at 0.5",
    "mF1_fitted": "mF1, fitted thresholds",
    "micro_AP": "micro AP",
    "ECE": "ECE, mean over classes",
    "ECE_flat": "ECE, flattened",
    "Brier": "Brier, mean over classes",
}
# of a fold, or of a file among several
SHORT_ROWS = ("mAP", "mAP_head", "mAP_medium", "mAP_tail", "mAUROC", "ECE", "Brier")
# names of classes in a sentence: of more, the table says which they are
SHOWN_NAMES = 20
GROUP, INTERVAL = "Group", "95 % interval"
# columns of text; all others are numbers
_TEXTS = (GROUP, INTERVAL)
CLASS_COLUMNS = ("Class", GROUP, "Positives", "AP", "AUROC", "F1 at 0.5", "ECE")


@dataclass(frozen=True)
class Table:
    """Cells as text, of which the first in each row names it: for a page or a terminal."""

    heading: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    sortable: bool = True

    def is_number(self, column: int) -> bool:
        """Whether its cells are set to the right."""
        return column > 0 and self.columns[column] not in _TEXTS

    def as_text(self) -> str:
        """Aligned columns under a rule, and the notes: the table in a terminal, without heading."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        marks = [">" if self.is_number(place) else "<" for place in range(len(widths))]
        form = "  ".join(f"{{:{mark}{width}}}" for mark, width in zip(marks, widths, strict=True))
        head, *body = [form.format(*cells).rstrip() for cells in lines]
        rule = "-" * max(map(len, (head, *body)))
        notes = [textwrap.fill(note, 100, subsequent_indent="  ") for note in self.notes]
        return "\n".join([head, rule, *body, *notes])


def lead_of(evaluation: Evaluation) -> str:
    """One line: of how many images, patients and classes."""
    summary = evaluation.summary
    patients = f", {summary['patients']:,} patients" if summary["patients"] else ""
    classes = f"{summary['classes']} classes, {summary['classes_scored']} of them scored"
    return f"{summary['images']:,} images{patients}, {classes}"


def summary_table(evaluation: Evaluation) -> Table:
    """The means, and the sentences to know of them."""
    summary = evaluation.summary
    rows = []
    for metric, label in SUMMARY_ROWS.items():
        group = metric.removeprefix("mAP_")
        classes = summary["group_classes"].get(group, summary["classes_scored"])
        if not classes and group != metric:
            continue
        interval = ""
        if metric in summary["intervals"]:
            low, high = summary["intervals"][metric]
            interval = f"[{low:.3f}, {high:.3f}]"
            if (count := summary["interval_classes"][metric]) != classes:
                point = summary["interval_points"][metric]
                interval = f"without the rarest: {point:.3f} {interval} (over {count})"
        per_class = metric.startswith(("mAP", "mAUROC", "mF1"))
        rows.append([label, f"{classes}" if per_class else "", number(summary[metric]), interval])
    columns = ("Measure", "Classes", "Value", INTERVAL)
    return Table("Summary", columns, rows, tuple(_notes(summary)), sortable=False)


def class_table(evaluation: Evaluation, columns: tuple[str, ...] = CLASS_COLUMNS) -> Table:
    """One row a class, most prevalent first, with some of CLASS_COLUMNS."""
    rows = []
    for name, row in by_prevalence(evaluation.per_class).iterrows():
        ap, auroc = (
            number(row[metric], (row.get(f"{metric}_low"), row.get(f"{metric}_high")))
            for metric in ("ap", "auroc")
        )
        counts = str(name), str(row["group"]), f"{row['positives']:,}"
        cells = (*counts, ap, auroc, number(row["f1"]), number(row["ece"]))
        every = dict(zip(CLASS_COLUMNS, cells, strict=True))
        rows.append([every[column] for column in columns])
    return Table("Classes", columns, rows)


def fold_tables(pooled: Evaluation, folds: Mapping[int, Evaluation]) -> list[Table]:
    """Means of each fold, and the AP of each class by fold; [] for a single one."""
    if len(folds) < 2:
        return []
    named = {f"fold {fold}": one for fold, one in folds.items()} | {"all together": pooled}
    shown = [name for name in SHORT_ROWS if not np.isnan(pooled.summary[name])]
    rows = []
    for name, one in named.items():
        counts = f"{one.summary['images']:,}", f"{one.summary['classes_scored']}"
        rows.append([name, *counts, *(number(one.summary[metric]) for metric in shown)])
    columns = ("Fold", "Images", "Classes scored", *(name.replace("_", " ") for name in shown))
    note = (
        "Each fold has a model of its own, scored on the images that it was not trained on; a mean "
        "is over the classes that are scored in that fold, so that folds with other rare classes "
        "have other means."
    )
    classes = []
    for label, row in by_prevalence(pooled.per_class).iterrows():
        aps = [number(one.per_class["ap"][str(label)]) for one in named.values()]
        classes.append([str(label), str(row["group"]), f"{row['positives']:,}", *aps])
    return [
        Table("Folds", columns, rows, (note,), sortable=False),
        Table("AP of each class by fold", ("Class", GROUP, "Positives", *named), classes),
    ]


def format_table(evaluation: Evaluation) -> str:
    """Classes and means for a terminal, at most 100 columns wide."""
    classes = class_table(evaluation, ("Class", "Positives", "AP", "AUROC", GROUP))
    rows = [[shorten(name), *cells] for name, *cells in classes.rows]
    tables = replace(classes, rows=rows), summary_table(evaluation)
    return "\n\n".join(table.as_text() for table in tables)


def number(
    value: float, bounds: tuple[float | None, float | None] = (None, None), sign: str = ""
) -> str:
    """ "0.812 [0.790, 0.833]", without the interval where there is none, "-" for NaN."""
    if np.isnan(value):
        return "-"
    text, (low, high) = f"{value:{sign}.3f}", bounds
    if low is None or high is None or np.isnan(low):
        return text
    return f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _notes(summary: dict[str, Any]) -> list[str]:
    """What a reader must know of how these numbers came about, one sentence or two each."""
    trained = summary["prevalence_from"] == "training"
    notes = [f"Groups by the prevalence in the {'training data' if trained else 'scored table'}."]
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        note = (
            f"Intervals: 95 %, {summary['resamples']:,} bootstrap resamples of {units}; those of "
            f"means run over the {summary['classes_in_intervals']} classes with at least "
            f"{MIN_POSITIVE_PATIENTS} positive patients"
        )
        rare = some(summary["too_rare_for_intervals"], SHOWN_NAMES)
        notes.append(f"{note}, without {rare}." if rare else f"{note}.")
    if summary["unscored"]:
        names = some(summary["unscored"], SHOWN_NAMES)
        notes.append(
            "A class without positives (or without negatives) has no AP and no AUROC and is left "
            f"out of the means. Here: {names}."
        )
    return notes
