"""The pictures of a report, one file an idea."""

from core.report.plots.classes import classes_figure, compared_figure
from core.report.plots.cooccurrence import cooccurrence_figure
from core.report.plots.histograms import histograms_figure
from core.report.plots.precision_recall import precision_recall_figure
from core.report.plots.reliability import reliability_figure
from core.report.plots.style import DOTS_PER_INCH, NAME_WIDTH, head_and_tail, shorten
from core.report.plots.training_curves import curves_figure

__all__ = [
    "DOTS_PER_INCH",
    "NAME_WIDTH",
    "classes_figure",
    "compared_figure",
    "cooccurrence_figure",
    "curves_figure",
    "head_and_tail",
    "histograms_figure",
    "precision_recall_figure",
    "reliability_figure",
    "shorten",
]
