"""AP and AUROC of each class: of one evaluation, or of several files beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.metrics import Evaluation
from core.report.plots.style import (
    COLOURS,
    GREY,
    GROUP_COLOURS,
    head_and_tail,
    new_figure,
    shorten,
    tidy,
)

# as many as have a colour of their own
MOST_FILES = len(COLOURS)


def classes_figure(evaluation: Evaluation) -> Figure:
    """Bars of AP and dots of AUROC by class with their intervals, most prevalent class on top."""
    rows, note = head_and_tail(evaluation.per_class)
    height = np.arange(len(rows))[::-1].astype(float)
    figure = new_figure(10, 1.5 + 0.3 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [GROUP_COLOURS[group] for group in rows["group"]]
    left.barh(height, rows["ap"].fillna(0), height=0.62, color=colours, alpha=0.45)
    _draw_dots((left, right), rows, height, colours)
    chance = rows["positives"] / rows["n"].where(rows["ap"].notna())
    left.plot(chance, height, "|", color="black", ms=11, mew=1.6)
    handles = [
        Line2D([], [], color=colour, marker="o", label=group)
        for group, colour in GROUP_COLOURS.items()
        if (rows["group"] == group).any()
    ]
    handles += [Line2D([], [], color="black", marker="|", ms=11, ls="", mew=1.6, label="chance")]
    _finish(figure, rows, note, height, handles, 6)
    return figure


def compared_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """The dots and intervals of each file below each other, by what it is called."""
    files = dict(list(evaluations.items())[:MOST_FILES])
    tables = [one.per_class for one in files.values()]
    (rows, note), count = head_and_tail(tables[0]), len(files)
    step = 1.0 + 0.45 * (count - 1)
    height = step * np.arange(len(rows))[::-1].astype(float)
    figure = new_figure(10, 1.5 + 0.26 * step * len(rows) + 0.25 * -(-count // 2))
    axes, handles = figure.subplots(1, 2, sharey=True), []
    for place, (colour, name) in enumerate(zip(COLOURS, files, strict=False)):
        at = height + 0.45 * ((count - 1) / 2 - place)
        _draw_dots(axes, tables[place].loc[rows.index], at, [colour] * len(rows))
        label = shorten(name, 44).replace("$", r"\$")
        handles.append(Line2D([], [], color=colour, marker="o", label=label))
    _finish(figure, rows, note, height, handles, 2)
    return figure


def _draw_dots(
    axes: Sequence[Axes], rows: pd.DataFrame, height: np.ndarray, colours: list[str]
) -> None:
    for axis, metric in zip(axes, ("ap", "auroc"), strict=True):
        if f"{metric}_low" in rows:
            bounds = rows[f"{metric}_low"], rows[f"{metric}_high"]
            axis.hlines(height, *bounds, colors=colours, lw=2)
        axis.scatter(rows[metric], height, c=colours, s=22, zorder=3)


def _finish(
    figure: Figure,
    rows: pd.DataFrame,
    note: str,
    height: np.ndarray,
    handles: list[Line2D],
    columns: int,
) -> None:
    """Names of the classes, limits and legend; why a class has no AP."""
    left, right = figure.axes
    for y, (_, row) in zip(height, rows.iterrows(), strict=True):
        if np.isnan(row["ap"]):
            missing = "positives" if row["positives"] == 0 else "negatives"
            missing = missing if row["n"] else "known labels"
            left.text(0.01, y, f"not scored: no {missing}", va="center", color=GREY, fontsize=8)
    labels = [f"{shorten(name)}  ({row['positives']:,})" for name, row in rows.iterrows()]
    left.set_yticks(height, labels, parse_math=False)
    margin = 0.7 * (height[0] / max(1, len(rows) - 1) or 1)
    left.set_ylim(-margin, height[0] + margin)
    right.axvline(0.5, color="black", lw=1, ls=":")
    left.set_xlim(0, 1.02)
    right.set_xlim(right=1.02)
    for axis, title in ((left, "AP"), (right, "AUROC")):
        axis.set_title(title, loc="left")
        tidy(axis)
    if note:
        figure.suptitle(note, fontsize=10)
    columns = min(len(handles), columns)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
