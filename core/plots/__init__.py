"""The pictures of a report, one file an idea."""

from core.plots.classes import classes_figure
from core.plots.compared import compared_figure
from core.plots.cooccurrence import cooccurrence_figure
from core.plots.curves import curves_figure
from core.plots.histograms import histograms_figure
from core.plots.precision_recall import precision_recall_figure
from core.plots.reliability import reliability_figure
from core.plots.style import DOTS_PER_INCH, NAME_WIDTH, head_and_tail, shorten

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
