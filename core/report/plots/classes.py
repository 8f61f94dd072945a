"""AP and AUROC of each class."""

import numpy as np
from matplotlib.figure import Figure

from core.metrics import Evaluation
from core.report.plots.style import (
    GROUP_COLOURS,
    group_handles,
    head_and_tail,
    legend_below,
    lowest_auroc,
    new_figure,
    say_unscored,
    shorten,
    tidy,
)


def classes_figure(evaluation: Evaluation) -> Figure:
    """Bars of AP and dots of AUROC by class with their intervals, most prevalent class on top.

    Of very many classes the head and the tail (`head_and_tail`).
    """
    rows, note = head_and_tail(evaluation.per_class)
    height = np.arange(len(rows))[::-1]
    figure = new_figure(10, 1.5 + 0.3 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [GROUP_COLOURS[group] for group in rows["group"]]
    left.barh(height, rows["ap"].fillna(0), height=0.62, color=colours, alpha=0.45)
    for axis, metric in ((left, "ap"), (right, "auroc")):
        for y, colour, (_, row) in zip(height, colours, rows.iterrows(), strict=True):
            bounds = [row.get(f"{metric}_low", np.nan), row.get(f"{metric}_high", np.nan)]
            axis.plot(bounds, [y, y], color=colour, lw=2.2, solid_capstyle="round")
            axis.plot(row[metric], y, "o", color=colour, ms=5)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        tidy(axis)
    chance = rows["positives"] / rows["n"].where(rows["ap"].notna())
    left.plot(chance, height, "|", color="black", ms=11, mew=1.6)
    right.axvline(0.5, color="black", lw=1, ls=":")
    say_unscored(left, rows, height)
    labels = [f"{shorten(name)}  ({row['positives']:,})" for name, row in rows.iterrows()]
    left.set_yticks(height, labels, parse_math=False)
    left.set_xlim(0, 1.02)
    drawn = rows.filter(["auroc", "auroc_low"]).to_numpy(dtype=float)
    right.set_xlim(lowest_auroc(drawn), 1.02)
    if note:
        figure.suptitle(note, fontsize=10)
    left.set_title("AP", loc="left")
    right.set_title("AUROC", loc="left")
    legend_below(figure, group_handles(set(rows["group"])))
    return figure
