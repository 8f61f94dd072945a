"""The four figures of a report: curves of the run, classes, precision-recall, reliability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve

from core.bootstrap import FloatArray
from core.calibration import calibration_bins
from core.metrics import Evaluation

# Okabe & Ito (2008): told apart by readers of every kind of colour vision
GROUP_COLOURS = {"head": "#0072B2", "medium": "#009E73", "tail": "#D55E00", "unknown": "#666666"}
FOLD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
GREY = "#8a8f98"
PANELS = {
    "train_loss": "Training loss",
    "mAP": "Macro AP",
    "mAUROC": "Macro AUROC",
}
# columns of a history of which the curves are drawn
NUMBERS = {"fold", "epoch", "best", *PANELS}
NAME_WIDTH = 30


def shorten(name: object, width: int = NAME_WIDTH) -> str:
    """The name on one line of at most `width` characters, cut with an ellipsis."""
    line = " ".join(str(name).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def curves_figure(history: pd.DataFrame) -> Figure | None:
    """Losses and macro metrics by epoch, one line a fold, the epoch that was kept ringed.

    history: one row a fold and epoch with any of the columns fold, epoch, phase, train_loss, mAP,
    mAUROC, and best (1 where the weights were kept). None where there is nothing to draw.
    """
    shown = [name for name in PANELS if name in history and history[name].notna().any()]
    if not shown:
        return None
    folds = history["fold"] if "fold" in history else pd.Series(1, index=history.index)
    columns = 2 if len(shown) == 4 else len(shown)
    rows = -(-len(shown) // columns)
    figure = _figure(4 * columns, 3.1 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for place, (fold, run) in enumerate(history.groupby(folds)):
        colour = FOLD_COLOURS[place % len(FOLD_COLOURS)]
        epochs = _epochs(run)
        best = _kept_row(run)
        for axis, name in zip(axes, shown, strict=True):
            values = run[name].to_numpy(dtype=float)
            axis.plot(epochs, values, color=colour, lw=1.6, marker=".", ms=4, label=f"fold {fold}")
            axis.plot(epochs[best], values[best], "o", ms=9, mfc="none", mec=colour, mew=1.8)
    changes = _phase_changes(history[folds == folds.iloc[0]])
    for axis, name in zip(axes, shown, strict=True):
        for change in changes:
            axis.axvline(change, color=GREY, lw=1, ls=":")
        axis.set_title(PANELS[name], loc="left")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axis)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def classes_figure(evaluation: Evaluation) -> Figure:
    """AP and AUROC of every class with their intervals, most prevalent class on top."""
    rows = evaluation.per_class.sort_values("prevalence", ascending=False, na_position="last")
    height = np.arange(len(rows))[::-1]
    figure = _figure(10, 1.5 + 0.3 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [GROUP_COLOURS[group] for group in rows["group"]]
    for axis, metric in ((left, "ap"), (right, "auroc")):
        for y, colour, (_, row) in zip(height, colours, rows.iterrows(), strict=True):
            bounds = [row.get(f"{metric}_low", np.nan), row.get(f"{metric}_high", np.nan)]
            axis.plot(bounds, [y, y], color=colour, lw=2.2, alpha=0.55, solid_capstyle="round")
            axis.plot(row[metric], y, "o", color=colour, ms=6)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        _tidy(axis)
    chance = rows["positives"] / rows["n"].where(rows["ap"].notna())
    left.plot(chance, height, "|", color="black", ms=11, mew=1.6)
    right.axvline(0.5, color="black", lw=1, ls=":")
    for y, (_, row) in zip(height, rows.iterrows(), strict=True):
        if np.isnan(row["ap"]):
            missing = "positives" if row["positives"] == 0 else "negatives"
            left.text(0.01, y, f"not scored: no {missing}", va="center", color=GREY, fontsize=8)
    labels = [f"{shorten(name)}  ({row['positives']:,})" for name, row in rows.iterrows()]
    left.set_yticks(height, labels, parse_math=False)
    left.set_xlim(0, 1.02)
    drawn = rows.filter(["auroc", "auroc_low"]).to_numpy(dtype=float)
    right.set_xlim(np.nanmin([0.47, *drawn.ravel()]) - 0.02, 1.02)
    left.set_title("AP", loc="left")
    right.set_title("AUROC", loc="left")
    _group_legend(figure, set(rows["group"]))
    return figure


def precision_recall_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure | None:
    """One small precision-recall plot a scored class, most prevalent first; None without any."""
    table = evaluation.per_class
    order = table["prevalence"].sort_values(ascending=False, na_position="last").index
    scored = [name for name in order if table["ap"].notna()[name]]
    if not scored:
        return None
    columns = min(4, len(scored))
    rows = -(-len(scored) // columns)
    figure = _figure(2.6 * columns + 0.4, 2.35 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, name in zip(axes, scored, strict=False):
        column = table.index.get_loc(name)
        known = ~np.isnan(targets[:, column])
        precision, recall, _ = precision_recall_curve(
            targets[known, column], probabilities[known, column], drop_intermediate=True
        )
        row = table.loc[name]
        colour = GROUP_COLOURS[row["group"]]
        # recall falls along these arrays: "post" shades exactly the step-wise AP
        axis.fill_between(recall, precision, step="post", color=colour, alpha=0.15, lw=0)
        axis.step(recall, precision, where="post", color=colour, lw=1.5)
        axis.axhline(row["positives"] / row["n"], color="black", lw=1, ls=":")
        axis.set_title(f"{shorten(name, 22)}  {row['ap']:.2f}", fontsize=9, parse_math=False)
        axis.set(xlim=(0, 1.03), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        _tidy(axis)
    for axis in axes[len(scored) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(scored) - columns) : len(scored)]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    return figure


def reliability_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure:
    """Observed share of positives against predicted probability, all classes pooled."""
    bins = calibration_bins(targets, probabilities)
    figure = _figure(5.6, 6.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    filled = bins[bins["count"] > 0]
    blue = GROUP_COLOURS["head"]
    top.vlines(filled["confidence"], filled["confidence"], filled["observed"], GREY, lw=1.2)
    top.plot(filled["confidence"], filled["observed"], color=blue, lw=1.6, marker="o", ms=5)
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="observed share of positives")
    summary = evaluation.summary
    top.set_title(f"ECE {summary['ECE']:.3f}   flattened {summary['ECE_flat']:.3f}", loc="left")
    edges = np.linspace(0, 1, len(bins) + 1)
    bottom.stairs(bins["count"], edges, fill=True, color=blue, alpha=0.6)
    # most labels of a long-tailed table sit in the first bin
    bottom.set_yscale("log")
    bottom.set(xlabel="predicted probability", ylabel="labels")
    _tidy(top)
    _tidy(bottom)
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e4e6ea", lw=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9)


def _group_legend(figure: Figure, groups: set[str]) -> None:
    handles: list[Any] = [
        Line2D([], [], color=colour, marker="o", lw=2.2, label=group)
        for group, colour in GROUP_COLOURS.items()
        if group in groups
    ]
    handles.append(Line2D([], [], color="black", marker="|", ms=11, ls="", mew=1.6, label="chance"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )


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
