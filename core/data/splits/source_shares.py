"""Shares of several sources in the draws of an epoch."""

from collections.abc import Sequence

import numpy as np

from core.data.tables.label_table import LabelTable
from core.errors import UserError

SMALLEST_SHARE = 1e-4


def source_shares(table: LabelTable, weights: Sequence[float]) -> np.ndarray | None:
    """The share of an epoch's draws for each of the table's sources, (S,) with sum 1.

    None without weights. Raises UserError for another number of weights than of sources, and for a
    share that is so small that it would never be drawn.
    """
    if not weights:
        return None
    sources = len(table.source_names)
    if len(weights) != sources:
        raise UserError(
            f"--source_weights gives {len(weights)} numbers for {max(sources, 1)} --train_csv: one "
            "for each of several, or leave it out"
        )
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    if ((shares > 0) & (shares < SMALLEST_SHARE)).any():
        name = table.source_names[int(np.where(shares > 0, shares, 1).argmin())]
        raise UserError(
            f"--source_weights gives source '{name}' less than one draw in "
            f"{round(1 / SMALLEST_SHARE):,}: give it more, or 0 to leave it out of training"
        )
    return shares
