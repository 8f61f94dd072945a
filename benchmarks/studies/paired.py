"""Paired scores of trainings that kept the validation predictions of each epoch.

Not a command. Recipes are compared with a reference on the same folds and seeds: predictions of
the folds of a seed are pooled, scores are means over seeds, and the interval of a difference is
that of `core.metrics.paired_difference`, from the influence of each patient on these means: of
these trainings, not of others with more seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from core.data.tables import read_table
from core.metrics.influence import AP, AUROC, Influence, cluster_indices, influence
from core.metrics.intervals import estimate_mean

Cell = tuple[int, int]
"""Seed and fold."""
Predictions = NDArray[np.float64]
"""(N, C), NaN for the images of other folds."""


@dataclass(frozen=True)
class Labels:
    """Labels (N, C) with class names, and the patients (N,)."""

    targets: NDArray[np.float64]
    names: tuple[str, ...]
    patients: NDArray[np.str_]

    @classmethod
    def read(cls, csv: Path) -> "Labels":
        """Labels of a CSV with patients."""
        table = read_table(csv, None)
        assert table.patients is not None
        return cls(table.targets.astype(float), table.class_names, table.patients)

    def columns(self, leave_out: Sequence[str]) -> list[int]:
        """Columns of the classes that are not left out."""
        return [place for place, name in enumerate(self.names) if name not in leave_out]


def epochs_file(run: Path, fold: int) -> Path:
    """File of a fold's predictions of each epoch, (E, V, C), and table rows, (V,)."""
    return run / "epochs" / f"fold{fold}.safetensors"


def is_finished(run: Path, fold: int, epochs: int) -> bool:
    """Whether all epochs of a fold have predictions."""
    path = epochs_file(run, fold)
    return path.exists() and len(load_file(path)["epochs"]) == epochs


def choose_epochs(
    labels: Labels, runs: Mapping[Cell, Path], epochs: int
) -> tuple[dict[Cell, Predictions], ...]:
    """Predictions (N, C) of finished cells, NaN for other folds, at three epochs.

    The best of the first `epochs`; the last of these; the best of all, where the head was trained
    again after these.
    """
    found: tuple[dict[Cell, Predictions], ...] = {}, {}, {}
    for cell, run in runs.items():
        path = epochs_file(run, cell[1])
        tensors = load_file(path) if path.exists() else {"epochs": np.empty(0)}
        every = tensors["epochs"].astype(float)
        if len(every) < epochs:
            continue
        rows = tensors["rows"]
        values = [macro_auroc(labels.targets[rows], one) for one in every]
        places = [int(np.argmax(values[:epochs])), epochs - 1, int(np.argmax(values))]
        for chosen, place in zip(found, places[: 3 if len(every) > epochs else 2], strict=False):
            chosen[cell] = np.full(labels.targets.shape, np.nan)
            chosen[cell][rows] = every[place]
    return found


def macro_auroc(targets: NDArray[np.float64], predictions: Predictions) -> float:
    """Mean AUROC of the classes that have both labels, by which every recipe keeps an epoch."""
    measured = influence(targets, predictions, np.arange(len(targets)), 0, 0)
    return float(np.nanmean(measured.values[AUROC]))


def mean_influence(
    labels: Labels, cells: Mapping[Cell, Predictions], columns: Sequence[int]
) -> Influence:
    """Influence on the scores of the given classes: folds pooled, mean over seeds."""
    clusters = cluster_indices(labels.patients, len(labels.patients))
    of_seeds = []
    for seed in sorted({seed for seed, _ in cells}):
        pooled = np.full(labels.targets.shape, np.nan)
        for (of, _), one in cells.items():
            pooled = np.where(np.isnan(one) | (of != seed), pooled, one)
        targets = np.where(np.isnan(pooled), np.nan, labels.targets)[:, columns]
        of_seeds.append(influence(targets, np.nan_to_num(pooled[:, columns]), clusters, 200, 0))
    mean = {
        name: np.mean([getattr(one, name) for one in of_seeds], axis=0)
        for name in ("values", "moves", "bias", "unseen")
    }
    least = {
        name: np.min([getattr(one, name) for one in of_seeds], axis=0)
        for name in ("patients", "fewest", "freedom")
    }
    return Influence(**mean, **least)


def compare(
    labels: Labels,
    ours: Mapping[Cell, Predictions],
    reference: Mapping[Cell, Predictions] | None,
    leave_out: Sequence[str],
) -> list[str]:
    """Macro AUROC and mAP, then their differences to a reference with 95 % intervals."""
    columns = labels.columns(leave_out)
    found = mean_influence(labels, ours, columns)
    scored: NDArray[np.bool_] = np.asarray(~np.isnan(found.values.sum(axis=0)))
    shown = [f"{found.values[row, scored].mean():.3f}" for row in (AUROC, AP)]
    if reference is None:
        return shown
    theirs = {cell: reference[cell] for cell in ours}
    difference = found.minus(mean_influence(labels, theirs, columns))
    for row in (AUROC, AP):
        estimate = estimate_mean(difference, row, scored)
        low, high = estimate.difference_interval()
        shown.append(f"{float(estimate.values):+.3f} [{low:+.3f}, {high:+.3f}]")
    return shown


def print_table(
    labels: Labels,
    runs: Mapping[str, Mapping[Cell, Path]],
    merged: Sequence[str],
    leave_out: Sequence[str],
    epochs: int,
) -> None:
    """Print scores of each recipe, and of the equal mean of those in `merged`, as Markdown.

    runs: by recipe the run of each (seed, fold); the first recipe is the reference. Rows are of the
    best of the first `epochs`, and of the best of all where the head was trained again.
    """
    chosen = {name: choose_epochs(labels, of, epochs) for name, of in runs.items()}
    means = []
    for parts in zip(*(chosen[name] for name in merged), strict=True):
        shared = [cell for cell in parts[0] if all(cell in part for part in parts)]
        means.append({cell: np.mean([part[cell] for part in parts], axis=0) for cell in shared})
    if merged:
        chosen[f"mean of the {len(merged)}"] = tuple(means)
    first = next(iter(chosen))
    reference, wanted = chosen[first][0], len(runs[first])
    print("| recipe | folds | macro AUROC | mAP | less the first's | mAP | last epoch | mAP |")
    print("| --- " * 8 + "|")
    for name, (best, last, again) in chosen.items():
        best, last, again = (
            {cell: one for cell, one in part.items() if cell in reference}
            for part in (best, last, again)
        )
        cells = [f"{len(best)} of {wanted}", "missing", *[""] * 5]
        if best:
            paired = None if name == first else reference
            found = compare(labels, best, paired, leave_out)
            cells[1:] = [*found, *[""] * (4 - len(found)), *compare(labels, last, None, leave_out)]
        print(f"| {name} | {' | '.join(cells)} |")
        if again:
            cells = [f"{len(again)} of {wanted}", *compare(labels, again, reference, leave_out)]
            print(f"| {name}, re-trained | {' | '.join(cells)} | | |")
