"""Source weights: share of draws per source, and removal of classes that no trained source has."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from core.data.tables.label_table import LabelTable
from core.errors import UserError

SMALLEST_SHARE = 1e-4


def source_shares(table: LabelTable, weights: Sequence[float]) -> np.ndarray | None:
    """Share of an epoch's draws for each of the table's sources, (S,) with sum 1.

    None without weights. Raises UserError if the numbers of weights and sources differ, and for a
    positive share below SMALLEST_SHARE.
    """
    if not weights:
        return None
    sources = len(table.source_names)
    if len(weights) != sources:
        raise UserError(
            f"--source_weights has {len(weights)} numbers for {max(sources, 1)} --train_csv: give "
            "one for each of several, or leave it out"
        )
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    if ((shares > 0) & (shares < SMALLEST_SHARE)).any():
        name = table.source_names[int(np.where(shares > 0, shares, 1).argmin())]
        raise UserError(
            f"--source_weights gives source '{name}' less than one draw in "
            f"{round(1 / SMALLEST_SHARE):,}: raise its weight, or set it to 0 to leave it out"
        )
    return shares


def drop_untrained_classes(
    table: LabelTable, shares: np.ndarray, log: Callable[[str], None]
) -> LabelTable:
    """Drop classes that have labels only in sources with a share of 0, and log their names.

    shares: (S,) of `source_shares`. Raises UserError if one of these sources has no label of the
    remaining classes.
    """
    assert table.sources is not None
    known = ~np.isnan(table.targets)
    trained = known[shares[table.sources] > 0].any(axis=0)
    left_out = known.any(axis=0) & ~trained
    if not left_out.any():
        return table
    for source in np.flatnonzero(shares == 0):
        if not known[table.sources == source][:, ~left_out].any():
            raise UserError(
                f"source '{table.source_names[source]}' has a weight of 0 in --source_weights and "
                "no label in common with the other sources: leave its CSV out"
            )
    log(
        f"Warning: {', '.join(compress(table.class_names, left_out))}: labelled only in sources "
        "with a weight of 0 in --source_weights, and left out of the model and the scores."
    )
    names = tuple(compress(table.class_names, ~left_out))
    return replace(table, targets=table.targets[:, ~left_out], class_names=names)
