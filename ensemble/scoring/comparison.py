"""Means of two prediction files and their difference, over the same named classes."""

from dataclasses import dataclass
from typing import Any

from core.errors import counted, some
from core.metrics import Evaluation, PairedDifference
from core.metrics.bootstrap import MIN_POSITIVE_PATIENTS, column_mean
from core.report.tables import SHOWN_NAMES

# name of a mean, and the column it is the mean of
MEANS = {"mAP": "ap", "mAUROC": "auroc"}


@dataclass(frozen=True, eq=False)
class Compared:
    """Macro means of a file and of the reference over `classes`, with `file - reference`.

    The classes are those of the intervals; without an interval they are all scored ones.
    """

    classes: list[str]
    left_out: list[str]
    """Scored classes that are too rare for an interval."""
    file: dict[str, float]
    """By the names in MEANS, as the next three."""
    reference: dict[str, float]
    difference: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """The classes, and each mean's file, reference, difference and interval."""
        means = {
            name: {
                "file": self.file[name],
                "reference": self.reference[name],
                "difference": self.difference[name],
                "interval": self.intervals.get(name),
            }
            for name in MEANS
        }
        return {"classes": self.classes, "left_out": self.left_out, **means}


def compare(file: Evaluation, reference: Evaluation, difference: PairedDifference) -> Compared:
    """The means over the classes of the difference's intervals; over all scored without these."""
    ap, summary = difference.per_class["ap"], difference.summary
    left_out = summary["too_rare_for_intervals"] if summary["intervals"] else []
    classes = ap.index[ap.notna() & ~ap.index.isin(left_out)].tolist()

    def means(table: Evaluation | PairedDifference) -> dict[str, float]:
        return {name: column_mean(table.per_class[key][classes]) for name, key in MEANS.items()}

    return Compared(
        classes,
        list(left_out),
        means(file),
        means(reference),
        means(difference),
        {name: summary["intervals"][name] for name in MEANS if name in summary["intervals"]},
    )


def describe_classes(compared: Compared) -> str:
    """Which classes the means and differences are over: how many, and which are left out."""
    count = counted(len(compared.classes), "class", "classes")
    if not compared.left_out:
        return f"{count} that can be scored"
    return (
        f"{count} with at least {MIN_POSITIVE_PATIENTS} positive patients, as their intervals "
        f"are, without {some(compared.left_out, SHOWN_NAMES)}"
    )
