"""Comparison of prediction files: means over the same classes, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.metrics import Evaluation, PairedDifference
from core.metrics.ap_auroc import column_mean
from ensemble.scoring.score import Scored

# column of each mean
MEANS = {"mAP": "ap", "mAUROC": "auroc"}


@dataclass(frozen=True, eq=False)
class Compared:
    """Macro means of a file and of the reference over `classes`, and their difference.

    `classes` are those of the intervals, or all scored classes without an interval.
    """

    classes: list[str]
    left_out: list[str]
    """Scored classes too rare for an interval."""
    means: dict[str, dict[str, Any]]
    """By the names in MEANS: file, reference, difference, and interval (or None)."""

    def as_json(self) -> dict[str, Any]:
        """Content for the JSON file."""
        return {"classes": self.classes, "left_out": self.left_out, **self.means}


@dataclass(frozen=True, eq=False)
class Entry:
    """Scores of one prediction file."""

    path: Path
    label: str
    """Short unique name."""
    evaluation: Evaluation
    difference: PairedDifference | None = None
    """This file minus the reference; None, like `compared`, for the reference itself."""
    compared: Compared | None = None


def compare_files(scored: Scored, reference: Path, labels: Mapping[Path, str]) -> list[Entry]:
    """Compare each file with the file `reference`, on the same images, in the order of `scored`."""
    other, entries = scored.evaluate(reference), []
    for path in scored.files:
        if path == reference:
            entries.append(Entry(path, labels[path], other))
            continue
        own, difference = scored.evaluate(path), scored.difference(path, reference)
        compared = compare(own, other, difference)
        entries.append(Entry(path, labels[path], own, difference, compared))
    return entries


def sort_by_map(entries: Sequence[Entry]) -> list[Entry]:
    """Sort by mAP, highest first; files without a scored class come last."""
    return sorted(entries, key=lambda one: -np.nan_to_num(one.evaluation.summary["mAP"], nan=-1))


def compare(file: Evaluation, reference: Evaluation, difference: PairedDifference) -> Compared:
    """Means over the classes of the difference's intervals, or over all scored classes."""
    ap, summary = difference.per_class["ap"], difference.summary
    left_out = summary["too_rare_for_intervals"] if summary["intervals"] else []
    classes = ap.index[ap.notna() & ~ap.index.isin(left_out)].tolist()
    tables = {"file": file.per_class, "reference": reference.per_class}
    tables["difference"] = difference.per_class
    means: dict[str, dict[str, Any]] = {}
    for name, column in MEANS.items():
        values = {key: column_mean(one[column][classes]) for key, one in tables.items()}
        means[name] = values | {"interval": summary["intervals"].get(name)}
    return Compared(classes, list(left_out), means)


def short_names(paths: Sequence[Path], *, anonymous: bool = False) -> dict[Path, str]:
    """File name of each path; duplicates have the whole path, or (`anonymous`) a number."""
    names = [path.name for path in paths]
    longer = {
        path: f"{path.name} ({number})" if anonymous else str(path)
        for number, path in enumerate(paths, start=1)
    }
    return {path: path.name if names.count(path.name) == 1 else longer[path] for path in paths}
