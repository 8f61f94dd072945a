"""Figure of score histograms of positives and negatives by class."""

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit, logit

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import (
    GREY,
    GROUP_COLOURS,
    head_and_tail,
    shorten,
    small_multiples,
    tidy,
)

BINS = 24
# scores are clipped to [_LEAST, 1 - _LEAST]
_LEAST = 1e-4
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)


def histograms_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure | None:
    """One small histogram for each class with a known label, most prevalent first; None without.

    The axis is log odds, as most scores of a rare class are far below 0.5. The bars of positives
    and of negatives sum to 1 each.
    """
    table, note = head_and_tail(evaluation.per_class)
    table = table[table["n"] > 0]
    if table.empty:
        return None
    scores = logit(np.clip(probabilities, _LEAST, 1 - _LEAST))
    known = scores[~np.isnan(targets)]
    # non-zero width for equal scores
    edges = np.linspace(known.min() - 0.1, known.max() + 0.1, BINS + 1)
    figure, axes = small_multiples(
        len(table),
        "predicted probability (log-odds axis)",
        "fraction of positives, of negatives",
        note,
    )
    # shared by all axes: setting them on dozens of axes takes seconds
    ticks = [tick for tick in _TICKS if expit(edges[0]) <= tick <= expit(edges[-1])]
    if len(ticks) < 3:
        ticks = expit(np.linspace(edges[0], edges[-1], 4)[1:-1]).tolist()
    axes[0].set_xlim(edges[0], edges[-1])
    axes[0].set_xticks(logit(ticks), [f"{tick:.2g}" for tick in ticks])
    for axis, (name, row) in zip(axes, table.iterrows(), strict=True):
        column = evaluation.per_class.index.get_loc(name)
        counts = []
        for label, colour in ((0, GREY), (1, GROUP_COLOURS[row["group"]])):
            chosen = scores[targets[:, column] == label, column]
            heights = np.histogram(chosen, edges)[0] / max(1, len(chosen))
            axis.stairs(heights, edges, fill=True, color=colour, alpha=0.45)
            counts.append(f"{len(chosen):,}")
        axis.set_title(
            f"{shorten(name, 20)}  {counts[1]} / {counts[0]}", fontsize=9, parse_math=False
        )
        axis.set_yticks([])
        axis.set_ylim(bottom=0)
        tidy(axis)
        axis.grid(visible=False)
    return figure
