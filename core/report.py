"""What a run says when it ends: one page with its figures, and one table in the terminal."""

import base64
import io
import textwrap
from operator import methodcaller
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from core.atomic import cannot_write, write_atomically
from core.bootstrap import MIN_POSITIVE_PATIENTS
from core.metrics import Evaluation
from core.plots import (
    NAME_WIDTH,
    classes_figure,
    curves_figure,
    precision_recall_figure,
    reliability_figure,
    shorten,
)

TEMPLATE = Path(__file__).with_name("report.html.jinja")
DOTS_PER_INCH = 130
# Agg cannot draw 2**16 pixels or more in one direction
MAX_PIXELS = 60_000
# a picture wider than this scrolls sideways on a phone: its letters would be too small
MAX_PHONE_INCHES = 6

# heading and caption of each picture, the latter also for those who cannot see it
HEADINGS = {
    "curves": (
        "Course of the training",
        "Loss and macro metrics by epoch, one line a fold. A ring marks the epoch whose weights "
        "were kept, a dotted line a new phase.",
    ),
    "classes": (
        "AP and AUROC of each class",
        "AP and AUROC with 95 % intervals, most prevalent class on top, number of positives in "
        "brackets. A tick marks chance: the prevalence for AP, 0.5 for AUROC.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Precision against recall of every scored class with its AP. The dotted line is chance, "
        "the class's prevalence.",
    ),
    "reliability": (
        "Reliability",
        "Observed share of positives against predicted probability, all classes pooled in 15 "
        "bins; below, the number of labels in each bin on a logarithmic scale.",
    ),
}

# name, what it is, key of the group's number of classes
SUMMARY_ROWS = (
    ("mAP", "mAP", None),
    ("mAP_head", "mAP, head", "head"),
    ("mAP_medium", "mAP, medium", "medium"),
    ("mAP_tail", "mAP, tail", "tail"),
    ("mAP_extreme", "mAP, extreme tail", "extreme"),
    ("mAUROC", "mAUROC", None),
    ("mF1", "mF1 at 0.5", None),
    ("mF1_fitted", "mF1, fitted thresholds", None),
    ("micro_AP", "micro AP", None),
    ("ECE", "ECE, mean over classes", None),
    ("ECE_flat", "ECE, flattened", None),
    ("Brier", "Brier, mean over classes", None),
)


def write_report(
    run_dir: Path,
    evaluation: Evaluation,
    targets: ArrayLike,
    probabilities: ArrayLike,
    history: pd.DataFrame,
    title: str,
    facts: dict[str, str],
) -> Path:
    """Write run_dir/plots/*.png and run_dir/report.html, and return the latter's path.

    targets, probabilities: the (N, C) tables that were evaluated. history: the run's metrics.csv,
    one row a fold and epoch; columns that are missing are left out of the curves. facts: what a
    reader must know to trust the numbers (command, versions, data, folds). The page embeds its
    pictures and needs neither network nor scripts. Each file appears whole or not at all.
    """
    labels, scores = np.asarray(targets, dtype=float), np.asarray(probabilities, dtype=float)
    figures = {
        "curves": curves_figure(history),
        "classes": classes_figure(evaluation),
        "precision_recall": precision_recall_figure(evaluation, labels, scores),
        "reliability": reliability_figure(evaluation, labels, scores),
    }
    plots = run_dir / "plots"
    try:
        # not its parents: a run folder that was removed stays so
        plots.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(plots, error) from error
    pictures = []
    for name, figure in figures.items():
        if figure is None:
            continue
        heading, caption = HEADINGS[name]
        png = _png(figure)
        write_atomically(plots / f"{name}.png", methodcaller("write_bytes", png))
        data = base64.b64encode(png).decode("ascii")
        wide = figure.get_figwidth() > MAX_PHONE_INCHES
        pictures.append({"heading": heading, "caption": caption, "data": data, "wide": wide})
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=title,
        summary=evaluation.summary,
        rows=_summary_rows(evaluation),
        notes=_notes(evaluation.summary),
        classes=_class_rows(evaluation),
        pictures=pictures,
        facts=facts,
    )
    write_atomically(run_dir / "report.html", methodcaller("write_bytes", html.encode("utf-8")))
    return run_dir / "report.html"


def format_table(evaluation: Evaluation) -> str:
    """The closing summary for a terminal, at most 100 columns wide."""
    width = 20 if evaluation.summary["resamples"] > 0 else 7
    line = f"{{:<{NAME_WIDTH}}} {{:>9}}  {{:>{width}}}  {{:>{width}}}  {{:<7}}"
    rule = "-" * len(line.format("", "", "", "", ""))
    lines = [line.format("class", "positives", "AP", "AUROC", "group").rstrip(), rule]
    for row in _class_rows(evaluation):
        cells = (shorten(row["name"]), row["positives"], row["ap"], row["auroc"], row["group"])
        lines.append(line.format(*cells).rstrip())
    lines.append(rule)
    for row in _summary_rows(evaluation):
        text = f"{row['label']:<{NAME_WIDTH}} {row['classes']:>9}  {row['value']} {row['interval']}"
        lines.append(text.rstrip())
    for note in _notes(evaluation.summary):
        lines.append(textwrap.fill(note, 100, subsequent_indent="  "))
    return "\n".join(lines)


def _summary_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Label, number of classes, value and interval of each summary value, as text."""
    summary = evaluation.summary
    rows = []
    for metric, label, group in SUMMARY_ROWS:
        classes = summary["group_classes"][group] if group else summary["classes_scored"]
        if group and not classes:
            continue
        interval = ""
        if metric in summary["intervals"]:
            low, high = summary["intervals"][metric]
            interval = f"[{low:.3f}, {high:.3f}]"
            point = summary["interval_points"][metric]
            if point != summary[metric]:
                interval = f"without the rarest: {point:.3f} {interval}"
        per_class = metric.startswith(("mAP", "mAUROC", "mF1"))
        rows.append(
            {
                "label": label,
                "classes": f"{classes}" if per_class else "",
                "value": _number(summary[metric]),
                "interval": interval,
            }
        )
    return rows


def _class_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Cells of the per-class table as text, most prevalent class first."""
    table = evaluation.per_class.sort_values("prevalence", ascending=False, na_position="last")
    rows = []
    for name, row in table.iterrows():
        cells = {"name": str(name), "group": row["group"], "positives": f"{row['positives']:,}"}
        for metric in ("ap", "auroc"):
            cells[metric] = _number(row[metric])
            if not np.isnan(row.get(f"{metric}_low", np.nan)):
                cells[metric] += f" [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]"
        rows.append(cells | {"f1": _number(row["f1"]), "ece": _number(row["ece"])})
    return rows


def _notes(summary: dict[str, Any]) -> list[str]:
    """What a reader must know of how these numbers came about, one sentence or two each."""
    notes = [f"Groups by the prevalence in the {_source(summary)}."]
    if summary["resamples"]:
        units = f"{summary['patients']:,} patients" if summary["patients"] else "images"
        note = (
            f"Intervals: 95 %, {summary['resamples']:,} bootstrap resamples of {units}; those of "
            f"means run over the {summary['classes_in_intervals']} classes with at least "
            f"{MIN_POSITIVE_PATIENTS} positive patients"
        )
        rare = ", ".join(summary["too_rare_for_intervals"])
        notes.append(f"{note}, without {rare}." if rare else f"{note}.")
    if summary["unscored"]:
        names = ", ".join(summary["unscored"])
        notes.append(
            "A class without positives (or without negatives) has no AP and no AUROC and is left "
            f"out of the means. Here: {names}."
        )
    return notes


def _source(summary: dict[str, Any]) -> str:
    return "training data" if summary["prevalence_from"] == "training" else "scored table itself"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _png(figure: Figure) -> bytes:
    dpi = min(DOTS_PER_INCH, MAX_PIXELS / figure.get_figheight())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
