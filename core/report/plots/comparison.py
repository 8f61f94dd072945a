"""AP and AUROC of each class in several files of predictions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.metrics import Evaluation
from core.report.plots.style import (
    COLOURS,
    head_and_tail,
    legend_below,
    lowest_auroc,
    new_figure,
    say_unscored,
    shorten,
    tidy,
)

# as many as have a colour of their own
MOST_FILES = len(COLOURS)


def compared_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """The dots and intervals of each file below each other, by what it is called.

    Of very many classes the head and the tail (`head_and_tail`).
    """
    files = dict(list(evaluations.items())[:MOST_FILES])
    tables = [one.per_class for one in files.values()]
    (rows, note), count = head_and_tail(tables[0]), len(files)
    step = 1.0 + 0.45 * (count - 1)
    height = step * np.arange(len(rows))[::-1].astype(float)
    figure = new_figure(10, 1.5 + 0.26 * step * len(rows) + 0.25 * -(-count // 2))
    left, right = figure.subplots(1, 2, sharey=True)
    lowest = []
    for place, (colour, own) in enumerate(zip(COLOURS, tables, strict=False)):
        own = own.loc[rows.index]
        at = height + 0.45 * ((count - 1) / 2 - place)
        for axis, metric in ((left, "ap"), (right, "auroc")):
            if f"{metric}_low" in own:
                axis.hlines(at, own[f"{metric}_low"], own[f"{metric}_high"], colors=colour, lw=1.6)
            axis.plot(own[metric], at, "o", color=colour, ms=4.5)
        lowest.append(lowest_auroc(own.filter(["auroc", "auroc_low"]).to_numpy(dtype=float)))
    for axis in (left, right):
        axis.set_ylim(-0.7 * step, height.max() + 0.7 * step)
        tidy(axis)
        axis.grid(visible=False, axis="y")
        axis.hlines(height[:-1] - step / 2, 0, 1.02, colors="#e4e6ea", lw=0.8, zorder=0)
    say_unscored(left, rows, height)
    labels = [f"{shorten(name)}  ({row['positives']:,})" for name, row in rows.iterrows()]
    left.set_yticks(height, labels, parse_math=False)
    left.set_xlim(0, 1.02)
    right.axvline(0.5, color="black", lw=1, ls=":")
    right.set_xlim(min(lowest), 1.02)
    if note:
        figure.suptitle(note, fontsize=10)
    left.set_title("AP", loc="left")
    right.set_title("AUROC", loc="left")
    handles: list[Any] = [
        Line2D(
            [], [], color=colour, marker="o", lw=1.6, label=shorten(name, 44).replace("$", r"\$")
        )
        for colour, name in zip(COLOURS, files, strict=False)
    ]
    legend_below(figure, handles, columns=2)
    return figure
