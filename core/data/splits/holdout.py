"""Hold-out set: patients excluded from training, with an even share of every class."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from core.data.splits.duplicates import describe_duplicates, find_duplicates, merge_patients
from core.data.splits.folds import assign_by_name, assign_folds, count_table
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first

# largest denominator of a share, unless it is smaller (0.01) or larger (0.99)
_FOLDS = 20
_MOST_CHOICES = 500


def assign_holdout(
    targets: np.ndarray, patients: np.ndarray | None = None, share: float = 0.2, seed: int = 0
) -> np.ndarray:
    """Choose the images that are held out, (N,) bool, from targets (N, C) and `patients` (N,).

    share: fraction that is held out, above 0 and below 1. The hold-out is one or several folds of
    `assign_folds`. Of all choices, or 500 random ones, it is the one with the fewest classes
    without a positive on one side, then the most even share of classes and images. If such a class
    remains, smaller folds are tried. Raises UserError for fewer patients (images) than the share
    needs.
    """
    finest = max(_FOLDS, round(1 / min(share, 1 - share)))
    part = Fraction(share).limit_denominator(finest)
    units = len(targets) if patients is None else len(pd.unique(patients))
    if units < part.denominator:
        what = "image" if patients is None else "patient"
        raise UserError(
            f"--share {share:g} is {part} of the {what}s and needs at least {part.denominator:,} "
            f"{what}s, not {units:,}: give another share, such as 0.5, or more {what}s"
        )
    found: list[tuple[int, float, np.ndarray]] = []
    for finer in (1, 2, 4):
        parts, taken = part.denominator * finer, part.numerator * finer
        if parts > units or (found and found[-1][0] == 0):
            break
        folds = assign_folds(targets, patients, parts, seed)
        one_sided, uneven, chosen = _best_choice(targets, folds, _choices(parts, taken, seed))
        found.append((one_sided, uneven, np.isin(folds, chosen)))
    return min(found, key=lambda one: one[:2])[2]


def _best_choice(
    targets: np.ndarray, folds: np.ndarray, choices: np.ndarray
) -> tuple[int, float, np.ndarray]:
    """Best choice of folds: (one-sided classes, unevenness, the choice)."""
    names = list(map(str, range(targets.shape[1])))
    counts = count_table(targets, folds, names).to_numpy()  # (1 + C, folds), images first
    counts = counts[counts.sum(axis=1) > 0]
    total, held = counts.sum(axis=1), np.stack([counts[:, one].sum(axis=1) for one in choices])
    # a class that cannot be learnt is worse than one that cannot be scored
    one_sided = ((held == 0) + 2 * (held == total)).sum(axis=1)
    share = choices.shape[1] / counts.shape[1]
    uneven = ((held / total - share) ** 2).sum(axis=1)
    best = np.lexsort((uneven, one_sided))[0]
    return int(one_sided[best]), float(uneven[best]), choices[best]


def _choices(folds: int, taken: int, seed: int) -> np.ndarray:
    """Choices of `taken` of the folds, (choices, taken) int; random if there are too many."""
    if comb(folds, taken) <= _MOST_CHOICES:
        return np.array([*combinations(range(folds), taken)])
    random = np.random.default_rng(seed)
    return np.array([random.permutation(folds)[:taken] for _ in range(_MOST_CHOICES)])


def divide_holdout(
    table: LabelTable, share: float, seed: int, log: Callable[[str], None]
) -> np.ndarray:
    """`assign_holdout` of a table, (N,) bool, independent of the row order.

    Duplicate images stay on one side. Logs classes with positives on one side only. Raises
    UserError like `assign_holdout`, and if a side has no positive at all.
    """
    for note in table.notes:
        log(note.replace("in two folds", "in both files (training and held out)"))
    first = find_duplicates(table.images) if table.paths else np.arange(len(table))
    if sentence := describe_duplicates(table.ids, table.patients, first):
        log(sentence)
    groups = merge_patients(table.patients, first)
    assign = partial(assign_holdout, share=share, seed=seed)
    held_out = assign_by_name(table, groups, assign) == 1
    _check_sides(table, groups, held_out, log)
    return held_out


def _check_sides(
    table: LabelTable, groups: np.ndarray | None, held_out: np.ndarray, log: Callable[[str], None]
) -> None:
    """Log classes with positives on one side only."""
    owners = np.arange(len(table)) if groups is None else groups
    what = "images" if groups is None else "patients"
    positives = table.targets == 1
    for rows, side, loss in (
        (held_out, "held-out", "scored"),
        (~held_out, "training", "learnt"),
    ):
        is_missing = ~positives[rows].any(axis=0)
        if is_missing.all():
            raise UserError(
                f"the {side} part would have no positive of any label: give another --seed or "
                f"--share (labels: {list_first(table.class_names, 12)})"
            )
        short = [
            f"{name} ({len(pd.unique(owners[is_positive])):,})"
            for name, is_positive in zip(table.class_names, positives.T, strict=True)
            if is_positive.any() and not is_positive[rows].any()
        ]
        if short:
            log(
                f"Warning: the {side} part has no positive of {list_first(short, 40)}, which "
                f"cannot be {loss} there (in parentheses: {what} with a positive)."
            )
