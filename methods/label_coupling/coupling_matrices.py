"""Coupling matrices of a run, read from checkpoints and aligned over folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError, list_first

if TYPE_CHECKING:  # imported late for a fast --help
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class FoldCouplings:
    """Couplings of one checkpoint."""

    path: Path
    fold: int  # from 1
    folds: int  # of the run
    class_names: list[str]
    weights: NDArray[np.float64]  # (C, C), from row on column, zero diagonal


@dataclass(frozen=True, eq=False)
class Couplings:
    """Couplings of one run, in one order of the labels."""

    class_names: list[str]
    numbers: list[int]  # (F,) fold numbers, ascending
    weights: NDArray[np.float64]  # (F, C, C)
    folds_text: str  # "3 folds", or "2 of 3 folds" if some are missing

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the folds, (C, C)."""
        return self.weights.mean(axis=0)

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Mask (C, C) of couplings that are exactly 0 in every fold."""
        return (self.weights == 0).all(axis=0)

    @property
    def sparsity(self) -> str:
        """Describe how many ordered pairs of two labels are `zero`, without the diagonal."""
        pairs = self.zero[~np.eye(len(self.zero), dtype=bool)]
        return f"{pairs.sum():,} of {pairs.size:,} ordered pairs ({100 * pairs.mean():.0f} %)"


def read_fold(path: Path) -> FoldCouplings:
    """Read the couplings of a checkpoint. Raises UserError if it has none."""
    from core.models.load import load_model
    from methods.label_coupling.model import CoupledHead

    model, info = load_model(path)
    head, fold, folds = model.head, info.facts.get("fold"), info.facts.get("folds")
    if not isinstance(head, CoupledHead):
        raise UserError(f"{path} is of {info.method}: give a checkpoint of label_coupling")
    if head.coupling is None:
        raise UserError(f"{path} has no couplings: give one that was trained with --refiner")
    if type(fold) is not int or type(folds) is not int or not 1 <= fold <= folds:
        raise UserError(f"{path} has no valid fold number: give another checkpoint")
    # without the diagonal, as in the model; + 0.0 turns -0 into 0
    weights = (head.coupling.A * head.coupling.off_diagonal).detach().double().numpy() + 0.0
    if not np.isfinite(weights).all():
        raise UserError(f"{path} has couplings that are not finite: train it again")
    return FoldCouplings(path, fold, folds, list(info.class_names), weights)


def align(found: Sequence[FoldCouplings]) -> Couplings:
    """Sort the folds of one run, with labels in the order of the first checkpoint.

    Raises UserError if labels or numbers of folds differ, and for a duplicate fold.
    """
    first, names = found[0], found[0].class_names
    seen: dict[int, FoldCouplings] = {}
    for other in found:
        missing, added = set(names) - set(other.class_names), set(other.class_names) - set(names)
        if missing or added:
            sides = ((missing, first.path), (added, other.path))
            apart = [f"{list_first(sorted(own), 6)} only in {path}" for own, path in sides if own]
            raise UserError(
                f"the checkpoints are not of one run, as classes differ: {'; '.join(apart)}"
            )
        if other.folds != first.folds:
            raise UserError(
                f"{first.path} is one of {first.folds} folds, {other.path} is one of {other.folds} "
                "folds: give those of one run"
            )
        if other.fold in seen:
            raise UserError(
                f"{seen[other.fold].path} and {other.path} are both fold {other.fold}: give one "
                "checkpoint of each fold"
            )
        seen[other.fold] = other
    places = {n: [seen[n].class_names.index(name) for name in names] for n in sorted(seen)}
    weights = np.stack([seen[n].weights[np.ix_(place, place)] for n, place in places.items()])
    folds_text = f"{len(seen)} of " if len(seen) < first.folds else ""
    folds_text += f"{first.folds} fold{'s' if first.folds > 1 else ''}"
    return Couplings(names, list(places), weights, folds_text)


def coupling_table(couplings: Couplings) -> DataFrame:
    """One row for each ordered pair of two labels, strongest mean weight first.

    Columns: source, target (it acts on), mean_weight, sign (1, -1 or 0), folds_with_sign, folds,
    and fold1, ... with the weight in each.
    """
    import pandas as pd

    names = np.array(couplings.class_names, dtype=object)
    sources, targets = np.nonzero(~np.eye(len(names), dtype=bool))
    weights = couplings.weights[:, sources, targets]  # (F, pairs)
    mean = couplings.mean[sources, targets]
    sign = np.sign(mean).astype(int)
    columns = {"source": names[sources], "target": names[targets], "mean_weight": mean}
    columns |= {"sign": sign, "folds_with_sign": (weights * sign > 0).sum(axis=0)}
    columns |= {"folds": np.full(len(mean), len(weights))}
    columns |= {f"fold{n}": row for n, row in zip(couplings.numbers, weights, strict=True)}
    return pd.DataFrame(columns).iloc[np.argsort(-np.abs(mean), kind="stable")]
