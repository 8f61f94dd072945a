"""Colours, sizes and helpers of all figures."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.metrics.evaluation import GROUP_CUTS

DOTS_PER_INCH = 130
# Okabe & Ito (2008): distinguishable with any colour vision
GROUP_COLOURS = {"head": "#0072B2", "medium": "#009E73", "tail": "#D55E00", "unknown": "#666666"}
# with cuts, as "head" alone might mean the head of a network
GROUP_LABELS = {
    "head": f"head classes (> {GROUP_CUTS[0] * 100:g} %)",
    "medium": f"medium classes ({GROUP_CUTS[1] * 100:g}-{GROUP_CUTS[0] * 100:g} %)",
    "tail": f"tail classes (< {GROUP_CUTS[1] * 100:g} %)",
    "extreme": f"extreme tail (< {GROUP_CUTS[2] * 100:g} %)",
    "unknown": "unknown",
}
# colours of folds and of compared files
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
GREY = "#8a8f98"
# maximum number of classes in a figure, a multiple of the small plots in a row
HEAD, TAIL = 32, 32


def shorten(name: object, width: int = 30) -> str:
    """Shorten a name to one line of at most `width` characters, with an ellipsis.

    Invalid UTF-8 becomes "?", as no font can draw it.
    """
    line = " ".join(str(name).encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= width else line[: width - 1] + "…"


def by_prevalence(per_class: pd.DataFrame) -> pd.DataFrame:
    """Sort the classes of an evaluation, most prevalent first."""
    return per_class.sort_values("prevalence", ascending=False, na_position="last", kind="stable")


def head_and_tail(per_class: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Classes to show in a figure, most prevalent first, and a note.

    Of more than HEAD + TAIL classes: the most and least prevalent with an AP, which the note
    explains; else all classes and "".
    """
    rows = by_prevalence(per_class)
    if len(rows) <= HEAD + TAIL:
        return rows, ""
    scored = rows[rows["ap"].notna()]
    scored = rows if scored.empty else scored
    shown = pd.concat([scored[:HEAD], scored[HEAD:][-TAIL:]])
    which = "all" if len(shown) == len(scored) else f"the {HEAD} most and {TAIL} least prevalent"
    return shown, f"{which} of {len(scored):,} scored classes ({len(rows):,} in all)"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with automatic layout."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def small_multiples(
    count: int, x: str, y: str, note: str = "", **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` small axes in rows of four and the shared labels `x` and `y`.

    The layout is fixed: automatic layout of dozens of axes takes seconds.
    """
    columns = min(4, count)
    rows = -(-count // columns)
    # inches
    top = 0.7 if note else 0.35
    width, height = 0.7 + 2.52 * columns, 0.25 + top + 2.27 * rows
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.15 / width,
        bottom=0.65 / height,
        top=1 - top / height,
        wspace=0.1,
        hspace=0.23,
    )
    if note:
        figure.suptitle(note, fontsize=10, y=1 - 0.12 / height, va="top")
    figure.supxlabel(x, fontsize=10, y=0.12 / height)
    figure.supylabel(y, fontsize=10, x=0.12 / width)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, **shared).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)
    return figure, axes[:count]


def tidy(axis: Axes) -> None:
    """Remove the box around an axis, and draw a light grid behind it."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e4e6ea", lw=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9)
