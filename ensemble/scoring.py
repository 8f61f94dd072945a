"""What is scored, with all files brought to the same images and classes, and who is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.bootstrap import mean_of_known
from core.data.columns import Column, find_column, is_known_non_label
from core.data.labels import LABEL_VALUES
from core.data.sources import read_sheet
from core.data.table import LabelTable, read_table
from core.errors import UserError, some
from core.metrics import Evaluation, PairedDifference, evaluate, paired_difference
from ensemble.tables import match_labels, read_predictions


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How a CSV of labels is read; see `core.data.table.read_table`."""

    uncertain: str = "ignore"
    blank: str | None = None
    image_column: str | None = None
    patient_column: str | None = None
    source: str | None = None
    views: str = "all"
    readers: str = "majority"
    official_split: str = "all"


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels, and the probabilities of several files for the same images and classes."""

    table: LabelTable
    files: dict[Path, NDArray[np.float64]]
    """(N, C) each"""
    prevalence: NDArray[np.float64] | None
    """(C,) of the training table; None where there is none."""
    notes: list[str]
    """What was left out."""
    resamples: int
    seed: int

    def evaluate(self, path: Path) -> Evaluation:
        """Score one of the files."""
        return evaluate(
            self.table.targets,
            self.files[path],
            self.table.class_names,
            prevalence=self.prevalence,
            patients=self.table.patients,
            resamples=self.resamples,
            seed=self.seed,
        )

    def difference(self, first: Path, second: Path) -> PairedDifference:
        """AP and AUROC of the first file minus those of the second, on the same resamples.

        Without resamples it has neither intervals nor classes that are too rare for them.
        """
        if self.resamples == 0:
            one, other = self.evaluate(first), self.evaluate(second)
            metrics = ["ap", "auroc"]
            summary = {m: one.summary[m] - other.summary[m] for m in ("mAP", "mAUROC")}
            none: dict[str, Any] = {
                "intervals": {},
                "interval_points": {},
                "too_rare_for_intervals": [],
            }
            return PairedDifference(
                one.per_class[metrics] - other.per_class[metrics], {**summary, **none}
            )
        return paired_difference(
            self.table.targets,
            self.files[first],
            self.files[second],
            self.table.class_names,
            patients=self.table.patients,
            resamples=self.resamples,
            seed=self.seed,
        )


@dataclass(frozen=True, eq=False)
class Entry:
    """One file of a leaderboard."""

    path: Path
    label: str
    """The end of its path that no other one has."""
    evaluation: Evaluation
    difference: PairedDifference | None
    """This file minus the reference; None for the reference itself."""


def read_scored(
    predictions: Sequence[Path],
    labels: Path,
    train_csv: Path | None = None,
    *,
    settings: LabelSettings,
    not_classes: Sequence[str] = (),
    common: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Scored:
    """Read prediction files, their labels, and the classes' prevalence in the training table.

    Classes are the columns of `labels` that are predicted, and all others (but `not_classes`) that
    hold nothing but label values, so that a class nobody predicts does not go unnoticed. Study
    labels are matched as images are, by name. Raises UserError for whatever is wrong with a file,
    and where they have not the same images and classes (unless `common`).
    """
    places = [path.resolve() for path in predictions]
    repeated = [path for path in predictions if places.count(path.resolve()) > 1]
    if repeated:
        raise UserError(f"{repeated[0]} is given more than once")
    tables = [read_predictions(path) for path in predictions]
    wanted = settings.image_column
    sheet = read_sheet(labels, settings.source, image_column=wanted, readers=settings.readers)
    columns = sheet.columns
    usual = find_column(labels, columns, wanted, sheet.image, "--image_column")
    # predictions by study are named in the column that names studies in the labels
    same = tables[0].id_column if tables[0].id_column in columns else None
    predicted = {name for table in tables for name in table.class_names}
    others = {usual or same, settings.patient_column, *sheet.no_labels, *not_classes}
    classes = [
        name
        for name, column in columns.items()
        if name in predicted or (name not in others and _is_label(name, column))
    ]
    if not predicted.intersection(classes):
        raise UserError(
            f"{labels} has no column for any class of {predictions[0]}: {some(sorted(predicted))}"
        )
    table = read_table(
        labels,
        None,
        classes,
        image_column=usual or same,
        patient_column=settings.patient_column,
        uncertain=settings.uncertain,
        blank=settings.blank,
        views=settings.views,
        official_split=settings.official_split,
        sheet=sheet,
    )
    table, arrays, notes = match_labels(tables, table, labels, common=common)
    files = dict(zip(predictions, arrays, strict=True))
    prevalence = None
    if train_csv is not None:
        prevalence = training_prevalence(train_csv, table.class_names, settings)
    return Scored(table, files, prevalence, notes, resamples, seed)


def training_prevalence(
    path: Path, class_names: Sequence[str], settings: LabelSettings
) -> NDArray[np.float64]:
    """Share of positives among the known labels of each class in a CSV, (C,); NaN without any.

    Images of a source's official test are no training images.
    """
    sheet = read_sheet(path, readers=settings.readers)
    usual = find_column(path, sheet.columns, None, sheet.image, "--image_column")
    table = read_table(
        path,
        None,
        class_names,
        # --image_column is that of the scored labels, which may name studies
        image_column=usual or settings.image_column,
        patient_column="none",
        uncertain=settings.uncertain,
        blank=settings.blank,
        official_split="train",
        sheet=sheet,
    )
    return mean_of_known(table.targets.T.astype(float))


def leaderboard(scored: Scored, reference: Path) -> list[Entry]:
    """All files, highest mAP first, each with its difference to the file `reference`."""
    labels = shortest_labels(list(scored.files))
    entries = []
    for path in scored.files:
        difference = None if path == reference else scored.difference(path, reference)
        entries.append(Entry(path, labels[path], scored.evaluate(path), difference))
    # a table without any scored class has no mAP, and keeps its order
    return sorted(entries, key=lambda one: -np.nan_to_num(one.evaluation.summary["mAP"], nan=-1))


def shortest_labels(paths: Sequence[Path]) -> dict[Path, str]:
    """For each path its shortest end, in whole parts, that none of the others has."""
    parts = {path: path.absolute().parts for path in paths}
    labels = {}
    for path, own in parts.items():
        others = [other for key, other in parts.items() if key != path]
        length = next(
            (n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)),
            len(own),
        )
        labels[path] = str(Path(*own[-length:]))
    return labels


def _is_label(name: str, column: Column) -> bool:
    """Whether a column that nobody predicts is meant as a label."""
    values = set(column.values)
    return not is_known_non_label(name) and values != {""} and values <= set(LABEL_VALUES)
