"""The pictures of a page: what each shows, and its pixels."""

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

# a picture wider than this scrolls sideways on a phone: its letters would be too small
MAX_PHONE_INCHES = 6

# heading and caption of each picture
HEADINGS = {
    "classes": (
        "AP and AUROC of each class",
        "Bars of AP and dots of AUROC with 95 % intervals, most prevalent class on top, number of "
        "positives in brackets. A tick marks chance: the prevalence for AP, 0.5 for AUROC.",
    ),
    "curves": (
        "Course of the training",
        "Loss, macro metrics and mean learning rates by epoch, one line a fold. A ring marks the "
        "epoch whose weights were kept, a dotted line a new phase.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Precision against recall of every scored class with its AP. The dotted line is chance, "
        "the class's prevalence.",
    ),
    "score_histograms": (
        "Scores of positives and negatives",
        "How the predicted probabilities of positives (in colour) and of negatives (grey) are "
        "spread, on an axis of log odds; their numbers beside the name. The bars of each kind have "
        "a sum of 1: where the two lie over each other, the class is not told apart.",
    ),
    "reliability": (
        "Reliability",
        "Observed share of positives against predicted probability, all classes pooled in 15 "
        "bins; below, the number of labels in each bin on a logarithmic scale.",
    ),
    "co_occurrence": (
        "Labels that come together",
        "How much more often than by chance two labels come together, in the labels (left) and in "
        "the predictions (right): red more often, blue less often, white as by chance or too "
        "rare to tell (rare pairs are drawn towards 1, Norén 2013), grey never known together. "
        "The pattern should be the same; unsure predictions make it paler.",
    ),
}
# pictures with a row or a small plot for each class
_OF_CLASSES = (
    *("classes", "precision_recall", "score_histograms"),
    *("compared", "compared_precision_recall"),
)


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows."""

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
    """What can be drawn of HEADINGS for (N, C) tables; the curves for the metrics.csv of a run."""
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
    """The figures that are there as PNGs; a caption says so where some of the classes are shown."""
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
