"""Labels of runs: those that they wrote, or those of their CSVs, read as they read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.config.data import DataConfig, SourcesReading
from core.data.sources import read_source_table
from core.data.tables.anonymous import anonymize, is_numbered
from core.data.tables.label_table import LabelTable
from core.data.tables.labels_csv import LABELS, read_labels_csv
from core.data.tables.load import gather
from core.errors import UserError
from ensemble.fitting.out_of_fold import Run

_WHICH = "say with --labels which file to score against"
# in what runs may differ where it is given; and in what they must agree
_GIVEN = ("image_column", "patient_column", "uncertain", "blank")
_FIXED = ("source", "official_split", "views", "readers", "label_map")


@dataclass(frozen=True, eq=False)
class RunLabels:
    """Labels of all images that runs predict, and more where they come from a CSV."""

    table: LabelTable
    files: tuple[Path, ...]  # that they were read from
    note: str = ""

    @property
    def told(self) -> Path:
        """The files as one, for a sentence."""
        return Path(", ".join(map(str, self.files)))


def labels_of(
    runs: Sequence[Run], csv: Path | None = None, given: Mapping[str, Any] | None = None
) -> RunLabels:
    """The labels that all `runs` were trained with; those of `csv` where it is given.

    They are in the runs' own labels.csv. Where a run has none, being of an earlier version, or
    where fields of LabelReading are `given`, their CSVs are read again as the runs read them.
    Images of runs with --anonymous keep their numbers unless `csv` names them. Raises UserError
    where runs differ in what is not given, and as `gather` does.
    """
    given = {name: value for name, value in (given or {}).items() if value}
    older = [run.path for run in runs if not (run.path / LABELS).is_file()]
    if csv is None:
        _check_names(runs)
        if not given and not older:
            return own_labels(runs)
    data = _data_of(runs, csv, given)
    csvs = data.val_csv or data.train_csv
    gone = [path for path in (*csvs, data.reading.label_map) if path and not path.exists()]
    if gone and csv is None:
        raise UserError(
            f"{runs[0].path} took its labels from {gone[0]}, which is not found from here "
            f"({Path.cwd()}): run this where the training was started, or give the CSV to "
            "ensemble.choose with --labels"
        )
    table = _read(data, runs)
    if csv is not None:
        return RunLabels(table, csvs)
    numbered = is_numbered(runs[0].predictions.ids[0])
    found = RunLabels(anonymize(table) if numbered else table, csvs)
    if not older:
        return found
    note = f"{older[0]} has no {LABELS}, as runs of earlier versions: {found.told} is read again."
    return replace(found, note=note)


def _check_names(runs: Sequence[Run]) -> None:
    if len({is_numbered(run.predictions.ids[0]) for run in runs}) > 1:
        raise UserError(f"some of these runs are of --anonymous and others are not: {_WHICH}")


def own_labels(runs: Sequence[Run]) -> RunLabels:
    """The labels.csv of runs; classes of the later ones come last.

    Raises UserError where a run has none, and where they differ for images and classes of both.
    """
    _check_names(runs)
    tables = [read_labels_csv(run.path) for run in runs]
    first, *others = [
        pd.DataFrame(table.targets, index=table.ids, columns=list(table.class_names))
        for table in tables
    ]
    for run, frame in zip(runs[1:], others, strict=True):
        one, other = first.align(frame, join="inner")
        differing = ((one != other) & ~(one.isna() & other.isna())).any(axis=1).sum()
        if differing:
            raise UserError(
                f"{run.path} and {runs[0].path} were trained with other labels of {differing:,} "
                f"images: {_WHICH}"
            )
        first = first.join(frame.drop(columns=one.columns))
    table = replace(
        tables[0], targets=first.to_numpy(np.float32), class_names=tuple(map(str, first.columns))
    )
    if any(run.settings.val_csv for run in runs):
        # the training images are there too
        predicted = {name for run in runs for name in run.predictions.ids}
        table = table.take(np.array([name in predicted for name in table.ids]))
    return RunLabels(table, tuple(run.path / LABELS for run in runs))


def _data_of(runs: Sequence[Run], csv: Path | None, given: Mapping[str, Any]) -> DataConfig:
    """Which CSVs to read, and how: as `given`, else as all runs read them."""
    first = runs[0]
    for run in runs[1:]:
        files = [one.settings.val_csv or one.settings.train_csv for one in (run, first)]
        if csv is None and len({tuple(Path(name).resolve() for name in one) for one in files}) > 1:
            its, others = map(", ".join, files)
            raise UserError(
                f"{run.path} has its labels from {its} and {first.path} from {others}: {_WHICH}"
            )
        for name in (*(_FIXED if csv is None else ()), *_GIVEN):
            own, other = getattr(run.reading, name), getattr(first.reading, name)
            if own != other and name not in given:
                how = f"say with --{name} how to read the labels" if name in _GIVEN else _WHICH
                raise UserError(
                    f"{run.path} was trained with --{name} {own} and {first.path} with {other}: "
                    f"{how}"
                )
    told = {name: getattr(first.reading, name) for name in _GIVEN} | dict(given)
    if csv is not None:
        for name, value in told.items():
            if isinstance(value, list | tuple) and len(value) > 1:
                raise UserError(
                    f"{first.path} was trained with one --{name} for each of its CSVs: say with "
                    f"--{name} how to read {csv}"
                )
        return DataConfig(train_csv=(csv,), reading=SourcesReading(**told))
    train, val = (tuple(map(Path, getattr(first.settings, f"{n}_csv"))) for n in ("train", "val"))
    return DataConfig(train_csv=train, val_csv=val, reading=first.reading.change(**told))


def _read(data: DataConfig, runs: Sequence[Run]) -> LabelTable:
    """The labels of the classes that any run predicts, in their order, without images."""
    names = list(dict.fromkeys(name for run in runs for name in run.predictions.class_names))
    validation = bool(data.val_csv)
    csvs = data.val_csv or data.train_csv
    if len(csvs) == 1 and data.reading.label_map is None:
        sheet = read_source_table(csvs[0], data.reading.of_csv(0))
        # of what the run was trained with, a label that no list of --val_csv names is 0
        listed = validation and sheet.lists
        names = [name for name in names if name in sheet.columns or listed] or names
    return gather(data, labels=names, validation=validation, images=False)
