"""Scores of positives beside those of negatives, class by class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import (
    GREY,
    GROUP_COLOURS,
    head_and_tail,
    label_all,
    shorten,
    small_multiples,
    tidy,
)

BINS = 24
# scores beyond these are drawn at them
_LEAST, _MOST = 1e-4, 1 - 1e-4
_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)
_FINE_TICKS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9)


def histograms_figure(
    evaluation: Evaluation, targets: FloatArray, probabilities: FloatArray
) -> Figure | None:
    """One small histogram a class with a known label, most prevalent first; None without any.

    Of very many classes the head and the tail (`head_and_tail`).

    On the axis of log odds, as most scores of a rare class are far below 0.5; the bars of the
    positives, and those of the negatives, have a sum of 1 each.
    """
    table, note = head_and_tail(evaluation.per_class)
    table = table[table["n"] > 0]
    if table.empty:
        return None
    known_scores = probabilities[~np.isnan(targets)]
    low, high = _log_odds(np.array([known_scores.min(), known_scores.max()]))
    # scores that are all the same have room too
    edges = np.linspace(low - 0.1, high + 0.1, BINS + 1)
    ticks = _within(_TICKS, edges)
    if len(ticks) < 3:
        ticks = _within(_FINE_TICKS, edges)[:5]
    figure, axes = small_multiples(len(table), columns=4, note=note)
    # they share these: to set them on each of dozens takes seconds
    axes[0].set_xlim(edges[0], edges[-1])
    axes[0].set_xticks([_log_odds(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    for axis, (name, row) in zip(axes, table.iterrows(), strict=True):
        column = evaluation.per_class.index.get_loc(name)
        scores = _log_odds(probabilities[:, column])
        positive, negative = (scores[targets[:, column] == label] for label in (1, 0))
        colour = GROUP_COLOURS[row["group"]]
        axis.stairs(_shares(negative, edges), edges, fill=True, color=GREY, alpha=0.45)
        axis.stairs(_shares(positive, edges), edges, fill=True, color=colour, alpha=0.4)
        axis.stairs(_shares(positive, edges), edges, color=colour, lw=1.3)
        counts = f"{len(positive):,} / {len(negative):,}"
        axis.set_title(f"{shorten(name, 20)}  {counts}", fontsize=9, parse_math=False)
        axis.set_yticks([])
        axis.set_ylim(bottom=0)
        tidy(axis)
        axis.grid(visible=False)
    label_all(
        figure, "predicted probability (axis of log odds)", "share of positives, of negatives"
    )
    return figure


def _within(ticks: Sequence[float], edges: FloatArray) -> list[float]:
    return [tick for tick in ticks if edges[0] <= _log_odds(tick) <= edges[-1]]


def _log_odds(p: FloatArray | float) -> FloatArray:
    clipped = np.clip(p, _LEAST, _MOST)
    return np.log(clipped / (1 - clipped))


def _shares(scores: FloatArray, edges: FloatArray) -> FloatArray:
    """The part of the scores in each bin; 0 where there are none."""
    return np.histogram(scores, edges)[0] / max(1, len(scores))
