"""Figures of a report: heading, caption and PNG."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.classes import classes_figure
from core.report.plots.cooccurrence import cooccurrence_figure
from core.report.plots.histograms import histograms_figure
from core.report.plots.precision_recall import precision_recall_figure
from core.report.plots.reliability import reliability_figure
from core.report.plots.style import DOTS_PER_INCH, head_and_tail
from core.report.plots.training_curves import curves_figure

# a wider figure scrolls sideways on a phone, where its text would be too small
MAX_PHONE_INCHES = 6

# heading and caption of each figure
HEADINGS = {
    "classes": (
        "AP and AUROC of each class",
        "AP (bars) and AUROC (dots) with 95 % intervals, most prevalent class on top; number of "
        "positives in brackets. A tick marks chance: the prevalence for AP, 0.5 for AUROC.",
    ),
    "curves": (
        "Training curves",
        "Loss, macro metrics and mean learning rates by epoch, one line a fold. A ring marks the "
        "best epoch, a dotted line a new phase.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Precision against recall of every scored class, with its AP. The dotted line is chance, "
        "the prevalence of the class.",
    ),
    "score_histograms": (
        "Scores of positives and negatives",
        "Distribution of predicted probabilities for positives (colour) and negatives (grey), on a "
        "log-odds axis; their numbers beside the name. The bars of each sum to 1. Where they "
        "overlap, the class is not separated.",
    ),
    "reliability": (
        "Reliability",
        "Observed fraction of positives against predicted probability, all classes pooled in 15 "
        "bins; below, the number of labels in each bin on a logarithmic scale.",
    ),
    "co_occurrence": (
        "Label co-occurrence",
        "Ratio of observed to chance co-occurrence of two labels, in the labels (left) and in the "
        "predictions (right). Red: more often than by chance; blue: less often; white: as by "
        "chance, or too rare (rare pairs shrink towards 1, Norén 2013); grey: never known "
        "together. The patterns should agree; uncertain predictions make it paler.",
    ),
}
# figures with a row or a small plot for each class
_OF_CLASSES = (
    *("classes", "precision_recall", "score_histograms"),
    *("compared", "compared_precision_recall"),
)


@dataclass(frozen=True)
class Picture:
    """A PNG with its heading and caption."""

    name: str
    heading: str
    caption: str
    png: bytes
    wide: bool
    """Whether it scrolls sideways on a phone."""


def draw_pictures(
    evaluation: Evaluation,
    targets: FloatArray,
    probabilities: FloatArray,
    history: pd.DataFrame | None = None,
) -> list[Picture]:
    """Draw the figures of HEADINGS for (N, C) tables; `history` is the metrics.csv of a run."""
    data = evaluation, targets, probabilities
    drawn = {
        "classes": classes_figure(evaluation),
        "curves": None if history is None else curves_figure(history),
        "precision_recall": precision_recall_figure(*data),
        "score_histograms": histograms_figure(*data),
        "reliability": reliability_figure(*data),
        "co_occurrence": cooccurrence_figure(*data),
    }
    return as_pictures(drawn, HEADINGS, evaluation)


def as_pictures(
    drawn: Mapping[str, Figure | None],
    headings: Mapping[str, tuple[str, str]],
    evaluation: Evaluation,
) -> list[Picture]:
    """Convert figures to PNGs; the caption notes if only some of the classes are shown."""
    note = head_and_tail(evaluation.per_class)[1]
    pictures = []
    for name, figure in drawn.items():
        if figure is None:
            continue
        heading, caption = headings[name]
        if note and name in _OF_CLASSES:
            caption += f" Shown: {note}."
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
        wide = figure.get_figwidth() > MAX_PHONE_INCHES
        pictures.append(Picture(name, heading, caption, png.getvalue(), wide))
    return pictures
