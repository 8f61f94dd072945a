"""Scoring data: predictions and labels matched by image and class, and their evaluation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.config.data import LabelReading
from core.data.csv.columns import Column, find_column
from core.data.csv.labels import is_label
from core.data.csv.non_labels import is_known_non_label
from core.data.sources import PLAIN, read_source_table
from core.data.sources.source_table import SourceTable
from core.data.tables.anonymous import restore_names
from core.data.tables.label_map import read_label_map
from core.data.tables.label_table import LabelTable, build_label_table
from core.data.tables.labels_csv import LABELS
from core.errors import UserError, list_first, normalize_name, pluralize
from core.metrics import Evaluation, PairedDifference, evaluate, paired_difference
from core.metrics.ap_auroc import mean_of_known
from core.runs.prediction_files import Predictions, match_labels
from ensemble.scoring.overlap import TrainingOverlap, find_training_overlap


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels, and probabilities of several files for the same images and classes."""

    table: LabelTable
    files: dict[Path, NDArray[np.float64]]
    """(N, C) each"""
    prevalence: NDArray[np.float64] | None
    """(C,) of the training table, NaN for unknown; None without one."""
    notes: list[str]
    """Sentences on images and classes that were left out."""
    resamples: int
    seed: int
    sheet: SourceTable
    """The CSV of the labels."""
    overlap: TrainingOverlap = field(default_factory=TrainingOverlap)

    def part(self, rows: NDArray[np.intp], classes: NDArray[np.bool_]) -> "Scored":
        """Subset of the images (`rows` (n,) indices) and classes (bool (C,))."""
        names = tuple(compress(self.table.class_names, classes))
        table = self.table.take(rows)
        table = replace(table, targets=table.targets[:, classes], class_names=names)
        files = {path: values[np.ix_(rows, classes)] for path, values in self.files.items()}
        prevalence = None if self.prevalence is None else self.prevalence[classes]
        return replace(self, table=table, files=files, prevalence=prevalence)

    def evaluate(self, path: Path) -> Evaluation:
        """Score one of the files, as `core.metrics.evaluate` does."""
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
        """AP and AUROC of the first file minus those of the second, on the same images."""
        return paired_difference(
            self.table.targets,
            self.files[first],
            self.files[second],
            self.table.class_names,
            patients=self.table.patients,
            resamples=self.resamples,
            seed=self.seed,
        )


def describe(table: LabelTable) -> str:
    """Describe the numbers of images, patients, studies and classes."""
    people = "patients not known, each image taken alone"
    if table.patients is not None:
        people = f"{len(set(table.patients)):,} patients"
    if table.studies is not None:
        people += f", {len(set(table.studies)):,} studies"
    classes = pluralize(len(table.class_names), "class", "classes")
    return f"{pluralize(len(table), 'image')}, {people}, {classes}"


def labels_beside(predictions: Path) -> Path:
    """Path of the labels that a run or `ensemble.choose` wrote beside these predictions.

    `predictions` may be a run folder. Raises UserError if there are none.
    """
    if predictions.is_dir():
        if (predictions / LABELS).is_file():
            return predictions / LABELS
        raise UserError(
            f"{predictions} has no {LABELS} (a run of version 0.1): give the CSV of its labels "
            "with --labels"
        )
    name = predictions.name
    choose, run = name.endswith("_oof.csv"), predictions.with_name("config.json").is_file()
    own = f"{name.removesuffix('_oof.csv')}_labels.csv" if choose else LABELS
    if not (choose or run) or not predictions.with_name(own).is_file():
        raise UserError(
            f"no labels are given, and none are beside {predictions}: give a CSV with --labels"
        )
    return predictions.with_name(own)


def read_scored(
    predictions: Sequence[Predictions],
    labels: Path,
    train_csv: Path | None = None,
    *,
    reading: LabelReading,
    own: bool = False,
    not_classes: Sequence[str] = (),
    common: bool = False,
    common_images: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Scored:
    """Read labels and the prevalence in `train_csv`, and match predictions with the labels.

    Classes are the predicted columns of `labels`, and all other columns (but `not_classes`) with
    label values alone, so that a class without predictions is noticed. A predicted class without a
    column is matched by the label map. Images and studies are matched by name. `own`: `labels` come
    from `labels_beside`, and may have more images. Raises UserError for an invalid file, and if the
    files differ in images (unless `common` or `common_images`) or classes (unless `common`).
    """
    tables, given = predictions, reading
    if own:
        reading = reading.change(source=(PLAIN,), blank="unknown", image_column="ImageID")
    sheet = read_source_table(labels, reading)
    predicted = list(dict.fromkeys(name for table in tables for name in table.class_names))
    sheet, renamed = rename_columns(labels, sheet, predicted, reading.label_map)
    columns = sheet.columns
    usual = find_column(labels, columns, reading.image_column, sheet.image, "--image_column")
    # predictions by study have the id column of the labels' studies
    same = tables[0].id_column if tables[0].id_column in columns else ""
    others = {usual or same, reading.patient_column, *sheet.no_labels, *not_classes}
    classes = _classes_to_score(columns, predicted, others)
    if not set(predicted).intersection(classes):
        names = list_first(sorted(predicted))
        raise UserError(f"{labels} has no column for any class of {tables[0].path}: {names}")
    # the column of --by view may be in --meta
    view = reading.view_column if reading.view_column in columns else ""
    named = reading.change(image_column=usual or same, view_column=view)
    table = build_label_table(sheet, None, classes, named)
    if own:
        known = {name for one in tables for name in restore_names(one.ids, table.ids)}
        table = table.take(np.array([name in known for name in table.ids]))
        # the columns are the run's own
        rest = (note for note in table.notes if not note.startswith("Columns of"))
        table = replace(table, notes=tuple(rest))
    table = replace(table, notes=(*renamed, *table.notes))
    labelled = table.ids
    shared = {"common": common, "common_images": common_images}
    table, arrays, notes = match_labels(tables, table, labels, **shared)
    files = dict(zip((one.path for one in tables), arrays, strict=True))
    prevalence = training = None
    if train_csv is not None:
        training, more = read_training(train_csv, table.class_names, given)
        prevalence = prevalence_in(training, table.class_names)
        table = replace(table, notes=(*table.notes, *more))
    # sorted, so that intervals over images do not depend on the order of rows
    order = np.argsort(np.asarray(table.ids, dtype=str), kind="stable")
    files = {path: values[order] for path, values in files.items()}
    table = table.take(order)
    overlap = find_training_overlap(tables, labelled, table, training)
    return Scored(table, files, prevalence, notes, resamples, seed, sheet, overlap)


def _classes_to_score(
    columns: Mapping[str, Column], predicted: Sequence[str], others: Collection[str]
) -> list[str]:
    """The columns that are predicted, and those, but `others`, that hold label values alone."""
    return [
        name
        for name, column in columns.items()
        if name in predicted
        or (name not in others and not is_known_non_label(name) and is_label(column))
    ]


def read_training(
    path: Path, class_names: Sequence[str], reading: LabelReading
) -> tuple[LabelTable, list[str]]:
    """Read the training table at `path` with those of the classes that it has; also notes.

    Images of a source's official test set are left out. The meaning of blanks is that of the source
    if it is known, and -1 is then unknown. Raises UserError if no class has a column.
    """
    sheet = read_source_table(path, LabelReading(readers=reading.readers))
    sheet, notes = rename_columns(path, sheet, class_names, reading.label_map)
    known = [name for name in class_names if name in sheet.columns]
    if not known:
        raise UserError(
            f"{path} has no column for any of the classes {list_first(class_names)}: give the "
            "table that the model was trained on, or the ..._labels.csv of ensemble.choose"
        )
    if len(known) < len(class_names):
        without = ", ".join(name for name in class_names if name not in known)
        notes.append(f"{path} has no column for {without}: of no known prevalence in training.")
    usual = find_column(path, sheet.columns, "", sheet.image, "--image_column")
    own = LabelReading(
        # --image_column is that of the scored labels, and may be a study column
        image_column=usual or reading.image_column,
        patient_column="none",
        official_split="train",
    )
    if sheet.blank is None:
        own = own.change(uncertain=reading.uncertain, blank=reading.blank)
    try:
        return build_label_table(sheet, None, known, own.change(patient_column="")), notes
    except UserError:
        # invalid patients, which a training would refuse
        return build_label_table(sheet, None, known, own), notes


def prevalence_in(table: LabelTable, class_names: Sequence[str]) -> NDArray[np.float64]:
    """Share of positives among the known labels of each class, (C,); NaN without known labels."""
    prevalence = np.full(len(class_names), np.nan)
    places = [list(class_names).index(name) for name in table.class_names]
    prevalence[places] = mean_of_known(table.targets.T.astype(float))
    return prevalence


def rename_columns(
    path: Path, sheet: SourceTable, class_names: Sequence[str], label_map: Path | None
) -> tuple[SourceTable, list[str]]:
    """Rename columns of the CSV `path` to the classes that they mean by the label map; also a note.

    Only classes without a column are searched; case and punctuation are ignored. Raises UserError
    if two columns mean the same class, and as `read_label_map` does.
    """
    meanings = read_label_map(label_map)
    labels = sheet.columns if sheet.labels is None else sheet.labels
    free: dict[str, list[str]] = {}
    for name in labels:
        if name not in class_names and name not in sheet.no_labels and not is_known_non_label(name):
            free.setdefault(normalize_name(meanings.meaning(name)), []).append(name)
    renamed: dict[str, str] = {}
    for name in class_names:
        found = free.get(normalize_name(meanings.meaning(name)), [])
        if name in sheet.columns or not found:
            continue
        if len(found) > 1:
            raise UserError(
                f"columns {' and '.join(found)} of {path} both mean the class '{name}' by the "
                "label map: give the one to score the name of the class"
            )
        renamed[found[0]] = name
    if not renamed:
        return sheet, []
    columns = {renamed.get(name, name): column for name, column in sheet.columns.items()}
    pairs = ", ".join(f"{label} is {name}" for label, name in renamed.items())
    listed = None if sheet.labels is None else tuple(renamed.get(n, n) for n in sheet.labels)
    return replace(sheet, columns=columns, labels=listed), [
        f"Labels of {path} by the label map: {pairs}."
    ]
