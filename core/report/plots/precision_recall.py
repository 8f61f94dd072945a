"""Figure of precision against recall by class."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import (
    COLOURS,
    GROUP_COLOURS,
    head_and_tail,
    shorten,
    small_multiples,
    tidy,
)


def precision_recall_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure | None:
    """One small precision-recall plot for each scored class, most prevalent first; None without."""
    return compared_precision_recall(evaluation, targets, {"": probabilities})


def compared_precision_recall(
    evaluation: Evaluation, targets: FloatArray, files: Mapping[str, FloatArray]
) -> Figure | None:
    """Precision-recall plots of several tables (N, C) of probabilities, by name of the table."""
    table = evaluation.per_class
    shown, note = head_and_tail(table)
    scored = shown.index[shown["ap"].notna()]
    if scored.empty:
        return None
    alone = len(files) == 1
    figure, axes = small_multiples(len(scored), "recall", "precision", note, sharey=True)
    # they share these: to set them on each of dozens takes seconds
    axes[0].set(xlim=(0, 1.03), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis, name in zip(axes, scored, strict=True):
        column, row = table.index.get_loc(name), table.loc[name]
        known = ~np.isnan(targets[:, column])
        for colour, probabilities in zip(COLOURS, files.values(), strict=False):
            precision, recall, _ = precision_recall_curve(
                targets[known, column], probabilities[known, column], drop_intermediate=True
            )
            colour = GROUP_COLOURS[row["group"]] if alone else colour
            # recall falls along these arrays: "post" shades exactly the step-wise AP
            if alone:
                axis.fill_between(recall, precision, step="post", color=colour, alpha=0.15, lw=0)
            axis.step(recall, precision, where="post", color=colour, lw=1.5 if alone else 1.2)
        axis.axhline(row["positives"] / row["n"], color="black", lw=1, ls=":")
        title = f"{shorten(name, 22)}  {row['ap']:.2f}" if alone else shorten(name, 26)
        axis.set_title(title, fontsize=9, parse_math=False)
        tidy(axis)
    return figure
