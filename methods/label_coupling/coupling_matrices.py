"""Coupling matrices of a run: read from checkpoints, aligned over folds, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError, some

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from pandas import DataFrame
    from torch import Tensor


METHOD = "label_coupling"
TENSOR = "head.coupling.A"


@dataclass(frozen=True, eq=False)
class FoldCouplings:
    """The couplings of one checkpoint."""

    path: Path
    fold: int  # from 1
    folds: int  # of the run
    class_names: list[str]
    weights: NDArray[np.float64]  # (C, C), from row on column, zero diagonal


@dataclass(frozen=True, eq=False)
class Couplings:
    """The couplings of one run, all in one order of the labels."""

    class_names: list[str]
    numbers: list[int]  # (F,) which folds these are, ascending
    weights: NDArray[np.float64]  # (F, C, C)
    told_folds: str  # "3 folds", or "2 of 3 folds" where not all were given

    @property
    def mean(self) -> NDArray[np.float64]:
        """(C, C), over the folds; one without the coupling counts as 0."""
        return self.weights.mean(axis=0)

    @property
    def zero(self) -> NDArray[np.bool_]:
        """(C, C), True where the coupling is exactly 0 in every fold."""
        return (self.weights == 0).all(axis=0)

    @property
    def sparsity(self) -> str:
        """How many ordered pairs of two labels (the diagonal is none) are `zero`."""
        pairs = self.zero[~np.eye(len(self.zero), dtype=bool)]
        return f"{pairs.sum():,} of {pairs.size:,} ordered pairs ({100 * pairs.mean():.0f} %)"


def read_fold(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> FoldCouplings:
    """The couplings of what `core.models.checkpoint.load_tensors` read from `path`, checked.

    Raises UserError where it is another method's, has no couplings, or does not fit its labels.
    """
    if facts.get("method") != METHOD:
        is_of = f"is of {_quoted(facts['method'])}" if "method" in facts else "holds no model"
        raise UserError(f"{path} {is_of}: give the checkpoints of a run of {METHOD}")
    names, fold, folds = facts.get("class_names"), facts.get("fold"), facts.get("folds")
    named = isinstance(names, list) and all(map(_is_name, names))
    if not isinstance(names, list) or not named or not 2 <= len(names) == len(set(names)):
        raise UserError(f"{path} does not name two or more classes, each once: give another one")
    if type(fold) is not int or type(folds) is not int or not 1 <= fold <= folds:
        raise UserError(f"{path} does not say which fold of how many it is: give another one")
    if TENSOR not in tensors:
        raise UserError(f"{path} has no couplings: give one that was trained without --no-refiner")
    matrix, square = tensors[TENSOR], (len(names), len(names))
    if tuple(matrix.shape) != square or not matrix.is_floating_point():
        raise UserError(
            f"{path}: {TENSOR} is {matrix.dtype} {tuple(matrix.shape)} where {len(names)} classes "
            f"need floating point {square}: give a checkpoint that nobody changed"
        )
    weights = matrix.float().numpy().astype(np.float64) + 0.0  # no -0
    if not np.isfinite(weights).all():
        pair = [_quoted(names[place]) for place in np.argwhere(~np.isfinite(weights))[0]]
        raise UserError(f"{path}: {TENSOR} is not finite from {' on '.join(pair)}: train it anew")
    # the model leaves it out as well
    np.fill_diagonal(weights, 0)
    return FoldCouplings(path, fold, folds, names, weights)


def align(found: Sequence[FoldCouplings]) -> Couplings:
    """The folds of one run in ascending order, their labels matched by name to the first one given.

    Raises UserError where their labels or numbers of folds differ, or where a fold is there twice:
    it would count twice in the mean, and agree with itself.
    """
    first, names = found[0], found[0].class_names
    seen: dict[int, FoldCouplings] = {}
    for other in found:
        missing, added = set(names) - set(other.class_names), set(other.class_names) - set(names)
        if missing or added:
            sides = ((missing, first.path), (added, other.path))
            told = [f"{some(sorted(map(_quoted, s)), 6)} only in {path}" for s, path in sides if s]
            raise UserError(f"These are not of one run, as classes differ: {'; '.join(told)}")
        if other.folds != first.folds:
            told = [f"{one.path} is one of {one.folds} folds" for one in (first, other)]
            raise UserError(f"{', '.join(told)}: give those of one run")
        if other.fold in seen:
            twice = f"{seen[other.fold].path} and {other.path} are both fold {other.fold}"
            raise UserError(f"{twice}: give one checkpoint of each fold")
        seen[other.fold] = other
    places = {n: [seen[n].class_names.index(name) for name in names] for n in sorted(seen)}
    weights = np.stack([seen[n].weights[np.ix_(place, place)] for n, place in places.items()])
    told_folds = f"{len(seen)} of " if len(seen) < first.folds else ""
    told_folds += f"{first.folds} fold{'s' if first.folds > 1 else ''}"
    return Couplings(names, list(places), weights, told_folds)


def coupling_table(couplings: Couplings) -> DataFrame:
    """One row for each ordered pair of two labels, strongest mean weight first.

    Columns: source, target (it acts on), mean_weight, sign (of the mean: 1, -1 or 0),
    folds_with_sign (in which the weight is not 0 and has that sign), folds, and fold1, ... with the
    weight in each fold.
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


def _is_name(name: object) -> bool:
    """Whether it is a text, not empty, that can be written."""
    return isinstance(name, str) and name.encode(errors="ignore").decode() == name != ""


def _quoted(text: object) -> str:
    """In quotes and on one line."""
    return f'"{" ".join(str(text).split())[:60]}"'
