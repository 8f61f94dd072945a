"""Figure of losses, macro metrics and learning rates by epoch."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.report.plots.style import COLOURS, GREY, new_figure, tidy

PANELS = {"train_loss": "Training loss", "mAP": "Macro AP", "mAUROC": "Macro AUROC"}
# columns of the peak learning rate of each module, and of its mean factor in an epoch
RATE, FACTOR = "_lr", "lr_factor"
# columns that are drawn, besides the rates
NUMBERS = ("fold", "epoch", "best", FACTOR, *PANELS)
_STYLES = (("#444444", "-"), ("#CC79A7", "--"), ("#E69F00", ":"), ("#56B4E9", "-."))


def curves_figure(history: pd.DataFrame) -> Figure:
    """Losses, macro metrics and learning rates by epoch; one line a fold, its best epoch ringed.

    `history`: one row a fold and epoch with phase, train_loss, mAP, mAUROC, best (1 if the weights
    were saved), MODULE_lr (peak rates of the phase) and lr_factor (mean fraction of these over the
    epoch's updates).
    """
    folds: dict[Any, pd.DataFrame] = {
        fold: run.sort_values("epoch") for fold, run in history.groupby("fold")
    }
    # rates and phases are equal in all folds, which may end at different epochs
    longest = max(folds.values(), key=len)
    epochs, phases = longest["epoch"].to_numpy(dtype=float), longest["phase"].to_numpy()
    starts = np.flatnonzero(phases[1:] != phases[:-1]) + 1
    figure = new_figure(8, 6.5)
    axes = figure.subplots(2, 2, sharex=True).ravel().tolist()
    for place, (fold, run) in enumerate(folds.items()):
        colour = COLOURS[place % len(COLOURS)]
        best = run[run["best"] == 1][-1:]
        for axis, name in zip(axes, PANELS, strict=False):
            line = run["epoch"], run[name]
            axis.plot(*line, color=colour, lw=1.6, marker=".", ms=4, label=f"fold {fold}")
            axis.plot(best["epoch"], best[name], "o", ms=9, mfc="none", mec=colour, mew=1.8)
            axis.set_title(PANELS[name], loc="left")
    _draw_rates(axes[-1], longest, starts)
    for axis in axes:
        for change in (epochs[starts - 1] + epochs[starts]) / 2:
            axis.axvline(change, color=GREY, lw=1, ls=":")
        axis.set_xlabel("epoch")
        axis.tick_params(labelbottom=True)
        axis.xaxis.get_major_locator().set_params(integer=True)
        tidy(axis)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _draw_rates(axis: Axes, run: pd.DataFrame, starts: np.ndarray) -> None:
    """Draw the mean learning rate of each module, interrupted between phases and where it is 0."""
    epochs = np.insert(run["epoch"].to_numpy(dtype=float), starts, np.nan)
    rates = [n for n in map(str, run) if n.endswith(RATE) and (run[n] > 0).any()]
    for (colour, style), name in zip(_STYLES, rates, strict=False):
        values = (run[name] * run[FACTOR]).where(run[name] > 0).to_numpy(dtype=float)
        apart, part = np.insert(values, starts, np.nan), name.removesuffix(RATE)
        axis.plot(epochs, apart, color=colour, ls=style, lw=1.6, marker=".", label=part)
        axis.legend(frameon=False, fontsize=8)
    axis.set_title("Learning rate", loc="left")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:g}")
