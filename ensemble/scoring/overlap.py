"""Overlap of scored images with training data: from the JSON of `infer`, and from --train_csv."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from core.data.images.find_files import strip_ending
from core.data.tables.anonymous import restore_names
from core.data.tables.label_table import LabelTable
from core.errors import UserError, pluralize
from core.report.tables import Table
from core.runs.prediction_files import Predictions
from ensemble.predict.training_overlap import KIND, Overlap, read_overlap

_COLUMNS = {
    "image_in_training": "Trained on",
    "image_in_validation": "Validated on",
    "patient_in_training": "Patient trained on",
    "patient_in_validation": "Patient validated on",
}


@dataclass(frozen=True, eq=False)
class TrainingOverlap:
    """Scored rows that were in the training data."""

    files: Mapping[Path, Overlap | None] = field(default_factory=dict)
    """By prediction file with a JSON of `infer` beside it; None for an invalid JSON."""
    images: int = 0
    patients: int | None = None
    """Scored images, and images of patients, in --train_csv; None for unknown patients."""
    out_of_fold: bool = False
    """True if all files are out-of-fold predictions of a run or of `choose`."""
    rows: int = 0

    def warnings(self, names: Mapping[Path, str]) -> list[str]:
        """Warnings, with the `names` of the files."""
        lines = []
        for path, found in self.files.items():
            if found is None:
                lines.append(
                    f"Warning: the {KIND}.json of {names[path]} is damaged, or of other rows: "
                    "predict again."
                )
                continue
            several = f"{names[path]}: " if len(names) > 1 else ""
            lines += [f"{several}{one}" for one in found.sentences("scored row", "scored rows")]
        if (self.images or self.patients) and not self.out_of_fold:
            people = f", {self.patients:,} are of a patient there" if self.patients else ""
            lines.append(
                f"Warning: of {pluralize(self.rows, 'scored row')}, --train_csv has {self.images:,}"
                f"{people}: unless these are out-of-fold predictions, scores on them are too good."
            )
        return lines

    def tables(self, names: Mapping[Path, str]) -> list[Table]:
        """Table of the counts of each file; empty without warnings."""
        if not (notes := self.warnings(names)):
            return []
        rows = []
        for path, found in self.files.items():
            if found is not None:
                counts = found.counts()
                cells = ["-" if counts[name] is None else f"{counts[name]:,}" for name in _COLUMNS]
                rows.append([names[path], f"{self.rows:,}", *cells])
        if self.images or self.patients:
            people = "-" if self.patients is None else f"{self.patients:,}"
            rows.append(["--train_csv", f"{self.rows:,}", f"{self.images:,}", "-", people, "-"])
        columns = ("File", "Rows", *_COLUMNS.values())
        return [Table("Scored rows that were in a training", columns, rows, tuple(notes))]

    def as_json(self, names: Mapping[Path, str], *, train_csv: bool) -> dict[str, Any]:
        """Counts of each file (unknown without a valid JSON of `infer`), and of --train_csv."""
        files = []
        for path, name in names.items():
            found = self.files.get(path)
            counts = dict.fromkeys(_COLUMNS) if found is None else found.counts()
            known = found is not None and all(one.known for one in found.checkpoints)
            files.append({"predictions": name, "known": known, **counts})
        by_name = {"images": self.images, "patients": self.patients}
        return {"rows": self.rows, "files": files, "train_csv": by_name if train_csv else None}


def find_training_overlap(
    predictions: Sequence[Predictions],
    labelled: Sequence[str],
    scored: LabelTable,
    training: LabelTable | None,
) -> TrainingOverlap:
    """Find `scored` rows that are in the training data.

    labelled: all names of the labels, which restore names from the numbers of --anonymous.
    """
    images, patients = 0, None
    if training is not None:
        known = {*map(_bare, training.ids)}
        images = sum(_bare(name) in known for name in scored.ids)
        if training.patients is not None and scored.patients is not None:
            people = {*training.patients} - {""}
            patients = int(pd.Index(scored.patients).isin(people).sum())
    return TrainingOverlap(
        files=dict(_by_file(predictions, labelled, scored.ids)),
        images=images,
        patients=patients,
        out_of_fold=all(is_out_of_fold(one.path) for one in predictions),
        rows=len(scored),
    )


def is_out_of_fold(predictions: Path) -> bool:
    """True for a run folder, or a file named like those of a run or of `ensemble.choose`."""
    if predictions.is_dir():
        return True
    name, run = predictions.name, predictions.with_name("config.json").is_file()
    labels = predictions.with_name(f"{name.removesuffix('_oof.csv')}_labels.csv")
    return (name.endswith("_oof.csv") and labels.is_file()) or (run and name.endswith("_val.csv"))


def _by_file(
    predictions: Sequence[Predictions], labelled: Sequence[str], scored: Sequence[str]
) -> Iterator[tuple[Path, Overlap | None]]:
    for one in predictions:
        try:
            found = read_overlap(one.path, one.ids)
        except UserError:
            yield one.path, None
            continue
        if found is not None:
            names = pd.Index(restore_names(one.ids, labelled))
            yield one.path, found.take(names.get_indexer(pd.Index(scored)))


def _bare(name: str) -> str:
    """Image name without its extension."""
    return strip_ending(name) or name
