"""Figure of reliability: observed fraction of positives against predicted probability."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.metrics.calibration_error import calibration_bins, expected_calibration_error
from core.report.plots.style import COLOURS, GREY, new_figure, shorten, tidy


def reliability_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure:
    """Reliability of all classes pooled in bins, with gaps to the diagonal and label counts."""
    bins = pd.DataFrame(calibration_bins(targets, probabilities))
    figure = new_figure(5.6, 6.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = _draw_curve(top, bins, COLOURS[0])
    top.vlines(filled["confidence"], filled["confidence"], filled["observed"], GREY, lw=1.2)
    summary = evaluation.summary
    top.set_title(f"ECE {summary['ECE']:.3f}   flattened {summary['ECE_flat']:.3f}", loc="left")
    edges = np.linspace(0, 1, len(bins) + 1)
    bottom.stairs(bins["count"], edges, fill=True, color=COLOURS[0], alpha=0.6)
    # most labels of a long-tailed table sit in the first bin
    bottom.set_yscale("log" if bins["count"].any() else "linear")
    bottom.set(xlabel="predicted probability", ylabel="labels")
    tidy(bottom)
    return figure


def compared_reliability(targets: FloatArray, files: Mapping[str, FloatArray]) -> Figure:
    """Reliability of several tables (N, C) of probabilities, by name of the table."""
    figure = new_figure(5.6, 5.2)
    axis = figure.subplots()
    for colour, (name, probabilities) in zip(COLOURS, files.items(), strict=False):
        error = expected_calibration_error(targets, probabilities)
        # a name that begins with _ is left out of legends, and $ begins a formula
        label = f"ECE flattened {error:.3f}  {shorten(name)}".replace("$", r"\$")
        bins = pd.DataFrame(calibration_bins(targets, probabilities))
        _draw_curve(axis, bins, colour, label)
    axis.set_xlabel("predicted probability")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _draw_curve(axis: Axes, bins: pd.DataFrame, colour: str, label: str = "") -> pd.DataFrame:
    """Draw a reliability curve; returns the bins that have labels."""
    filled = bins[bins["count"] > 0]
    axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    shares = filled["confidence"], filled["observed"]
    axis.plot(*shares, color=colour, lw=1.5, marker="o", ms=4.5, label=label or None)
    axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="observed share of positives")
    tidy(axis)
    return filled
