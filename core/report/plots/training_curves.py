"""Losses, macro metrics and learning rates by epoch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import COLOURS, GREY, new_figure, tidy

PANELS = {"train_loss": "Training loss", "mAP": "Macro AP", "mAUROC": "Macro AUROC"}
# a column of the peak learning rate of each part; the share of it that an epoch had on average
RATE, FACTOR = "_lr", "lr_factor"
_STYLES = (("#444444", "-"), ("#CC79A7", "--"), ("#E69F00", ":"), ("#56B4E9", "-."))


def number_columns(history: pd.DataFrame) -> list[str]:
    """The columns of a history that must be numbers for its curves."""
    named = {"fold", "epoch", "best", FACTOR, *PANELS}
    return [name for name in map(str, history) if name in named or name.endswith(RATE)]


def curves_figure(history: pd.DataFrame) -> Figure | None:
    """Losses and macro metrics by epoch, one line a fold, the kept epoch ringed; learning rates.

    history: one row a fold and epoch with any of the columns fold, epoch, phase, train_loss, mAP,
    mAUROC, best (1 where the weights were kept), PART_lr (peak rates of the phase) and lr_factor
    (share of these, the mean over the epoch's updates). None where there is nothing to draw.
    """
    shown = [name for name in PANELS if name in history and history[name].notna().any()]
    rates = [
        name
        for name in number_columns(history)
        if name.endswith(RATE) and (history[name] > 0).any()
    ]
    if not shown:
        return None
    folds = history["fold"] if "fold" in history else pd.Series(1, index=history.index)
    count = len(shown) + bool(rates)
    columns = 2 if count == 4 else count
    rows = -(-count // columns)
    figure = new_figure(4 * columns, 3.1 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel().tolist()
    for place, (fold, run) in enumerate(history.groupby(folds)):
        colour = COLOURS[place % len(COLOURS)]
        epochs = _epochs(run)
        best = _kept_row(run)
        for axis, name in zip(axes, shown, strict=False):
            values = run[name].to_numpy(dtype=float)
            axis.plot(epochs, values, color=colour, lw=1.6, marker=".", ms=4, label=f"fold {fold}")
            axis.plot(epochs[best], values[best], "o", ms=9, mfc="none", mec=colour, mew=1.8)
    for axis, name in zip(axes, shown, strict=False):
        axis.set_title(PANELS[name], loc="left")
    if rates:
        # the rates are the same in each fold, which may end earlier than others
        longest = folds.value_counts(sort=False).idxmax()
        _draw_rates(axes[-1], history[folds == longest], rates)
    changes = _phase_changes(history[folds == folds.iloc[0]])
    for axis in axes:
        for change in changes:
            axis.axvline(change, color=GREY, lw=1, ls=":")
        axis.set_xlabel("epoch")
        axis.tick_params(labelbottom=True)
        axis.xaxis.get_major_locator().set_params(integer=True)
        tidy(axis)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _draw_rates(axis: Axes, run: pd.DataFrame, rates: list[str]) -> None:
    """The mean learning rate of each part by epoch, no line where it rests or between phases."""
    told = FACTOR in run and run[FACTOR].notna().all()
    factor = run[FACTOR].to_numpy(dtype=float) if told else 1.0
    epochs = _epochs(run)
    starts = np.searchsorted(epochs, _phase_changes(run))
    for (colour, style), name in zip(_STYLES, rates, strict=False):
        peak = run[name].to_numpy(dtype=float)
        values = np.where(peak > 0, peak * factor, np.nan)
        told_name = name.removesuffix(RATE)
        # a phase has its own rates: nothing leads from one to the next
        apart = np.insert(epochs, starts, np.nan), np.insert(values, starts, np.nan)
        axis.plot(*apart, color=colour, ls=style, lw=1.6, marker=".", label=told_name)
    axis.set_title("Learning rate" if told else "Peak learning rate", loc="left")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8)


def _epochs(run: pd.DataFrame) -> FloatArray:
    """Epochs of one fold, or the rows' numbers where a phase starts counting anew."""
    if "epoch" in run and run["epoch"].is_monotonic_increasing and run["epoch"].is_unique:
        return run["epoch"].to_numpy(dtype=float)
    return np.arange(1, len(run) + 1, dtype=float)


def _kept_row(run: pd.DataFrame) -> list[int]:
    """Position of the last epoch of one fold that was the best yet, empty where none is told."""
    return np.flatnonzero(run["best"] == 1)[-1:].tolist() if "best" in run else []


def _phase_changes(run: pd.DataFrame) -> Sequence[float]:
    """Half way between the last epoch of a phase and the first of the next."""
    if "phase" not in run:
        return []
    epochs, phases = _epochs(run), run["phase"].to_numpy()
    starts = np.flatnonzero(phases[1:] != phases[:-1]) + 1
    return [(epochs[start - 1] + epochs[start]) / 2 for start in starts]
