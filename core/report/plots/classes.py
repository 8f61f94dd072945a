"""Figure of AP and AUROC by class, of one evaluation or several files."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.metrics import Evaluation
from core.report.plots.style import (
    COLOURS,
    GREY,
    GROUP_COLOURS,
    GROUP_LABELS,
    head_and_tail,
    new_figure,
    shorten,
    tidy,
)

# one colour for each file
MOST_FILES = len(COLOURS)


def classes_figure(evaluation: Evaluation) -> Figure:
    """Bars of AP and dots of AUROC by class with their intervals, most prevalent class on top."""
    rows = head_and_tail(evaluation.per_class)[0]
    colours = [GROUP_COLOURS[group] for group in rows["group"]]
    handles = [
        Line2D([], [], color=colour, marker="o", label=GROUP_LABELS[group])
        for group, colour in GROUP_COLOURS.items()
        if (rows["group"] == group).any()
    ]
    handles += [Line2D([], [], color="black", marker="|", ms=11, ls="", mew=1.6, label="chance")]
    figure, height = _draw([evaluation], [colours], handles, 6)
    left = figure.axes[0]
    left.barh(height, rows["ap"].fillna(0), height=0.62, color=colours, alpha=0.45)
    chance = rows["positives"] / rows["n"].where(rows["ap"].notna())
    left.plot(chance, height, "|", color="black", ms=11, mew=1.6)
    return figure


def compared_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Dots and intervals of several files, by name of the file."""
    handles = [
        Line2D([], [], color=colour, marker="o", label=shorten(name, 44).replace("$", r"\$"))
        for colour, name in zip(COLOURS, evaluations, strict=False)
    ]
    return _draw([*evaluations.values()][:MOST_FILES], COLOURS, handles, 2)[0]


def _draw(
    evaluations: list[Evaluation],
    colours: Sequence[str | list[str]],
    handles: list[Line2D],
    columns: int,
) -> tuple[Figure, np.ndarray]:
    """Draw dots with intervals, names, limits and legend; returns the height of each class too."""
    tables, count = [one.per_class for one in evaluations], len(evaluations)
    rows, note = head_and_tail(tables[0])
    step = 1.0 + 0.45 * (count - 1)
    height = step * np.arange(len(rows))[::-1].astype(float)
    columns = min(len(handles), columns)
    lines = 0 if count == 1 else -(-count // columns)
    figure = new_figure(10, 1.5 + 0.3 * step * len(rows) + 0.25 * lines)
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, metric, title in ((left, "ap", "AP"), (right, "auroc", "AUROC")):
        for place, (table, colour) in enumerate(zip(tables, colours, strict=False)):
            shown, at = table.loc[rows.index], height + 0.45 * ((count - 1) / 2 - place)
            if f"{metric}_low" in shown:
                bounds = shown[f"{metric}_low"], shown[f"{metric}_high"]
                axis.hlines(at, *bounds, colors=colour, lw=2)
            axis.scatter(shown[metric], at, c=colour, s=22, zorder=3)
        axis.set_title(title, loc="left")
        tidy(axis)
    for y, (_, row) in zip(height, rows.iterrows(), strict=True):
        if np.isnan(row["ap"]):
            missing = "positives" if row["positives"] == 0 else "negatives"
            missing = missing if row["n"] else "known labels"
            left.text(0.01, y, f"not scored: no {missing}", va="center", color=GREY, fontsize=8)
    labels = [f"{shorten(name)}  ({row['positives']:,})" for name, row in rows.iterrows()]
    left.set_yticks(height, labels, parse_math=False)
    left.set_ylim(-0.7 * step, height[0] + 0.7 * step)
    right.axvline(0.5, color="black", lw=1, ls=":")
    left.set_xlim(0, 1.02)
    right.set_xlim(right=1.02)
    if note:
        figure.suptitle(note, fontsize=10)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return figure, height
