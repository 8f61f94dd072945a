"""Labels of training runs, from their labels.csv or from the CSVs that they were trained on."""

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

_GIVE_LABELS = "give the file to score against with --labels"
# settings that flags may override, and settings that must be equal in all runs
_GIVEN = ("image_column", "patient_column", "uncertain", "blank")
_FIXED = ("source", "official_split", "views", "readers", "label_map")


@dataclass(frozen=True, eq=False)
class RunLabels:
    """Labels of all images that the runs predict; a CSV may have more images."""

    table: LabelTable
    files: tuple[Path, ...]  # the files they were read from
    note: str = ""

    @property
    def path(self) -> Path:
        """The files joined into one path, for messages."""
        return Path(", ".join(map(str, self.files)))


def read_run_labels(
    runs: Sequence[Run], csv: Path | None = None, given: Mapping[str, Any] | None = None
) -> RunLabels:
    """Labels that all `runs` were trained with, or those of `csv` if it is given.

    They come from the runs' labels.csv. The training CSVs are read again with the settings of the
    runs if fields of LabelReading are `given`, or if a run of an earlier version has no labels.csv.
    Images of runs with --anonymous keep their numbers unless `csv` has their names. Raises
    UserError if the runs differ in a setting that is not given, and as `gather` does.
    """
    given = {name: value for name, value in (given or {}).items() if value}
    older = [run.path for run in runs if not (run.path / LABELS).is_file()]
    if csv is None:
        _check_names(runs)
        if not given and not older:
            return read_own_labels(runs)
    data = _data_of(runs, csv, given)
    csvs = data.val_csv or data.train_csv
    gone = [path for path in (*csvs, data.reading.label_map) if path and not path.exists()]
    if gone and csv is None:
        raise UserError(
            f"{gone[0]}, the labels of {runs[0].path}, is missing (searched from {Path.cwd()}): "
            "run this in the folder where the training was started, or give the CSV to "
            "ensemble.choose with --labels"
        )
    table = _read(data, runs)
    if csv is not None:
        return RunLabels(table, csvs)
    numbered = is_numbered(runs[0].predictions.ids[0])
    found = RunLabels(anonymize(table) if numbered else table, csvs)
    if not older:
        return found
    note = f"{older[0]} is of an earlier version without {LABELS}: {found.path} is read again."
    return replace(found, note=note)


def _check_names(runs: Sequence[Run]) -> None:
    if len({is_numbered(run.predictions.ids[0]) for run in runs}) > 1:
        raise UserError(f"some of these runs are anonymous and others are not: {_GIVE_LABELS}")


def read_own_labels(runs: Sequence[Run]) -> RunLabels:
    """Merge the labels.csv of runs; classes of later runs come last.

    Raises UserError if a run has none, or if labels of the same image and class differ.
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
                f"{run.path} and {runs[0].path} have different labels for {differing:,} images: "
                f"{_GIVE_LABELS}"
            )
        first = first.join(frame.drop(columns=one.columns))
    table = replace(
        tables[0], targets=first.to_numpy(np.float32), class_names=tuple(map(str, first.columns))
    )
    if any(run.settings.val_csv for run in runs):
        # with an official split, labels.csv has the training images too
        predicted = {name for run in runs for name in run.predictions.ids}
        table = table.take(np.array([name in predicted for name in table.ids]))
    return RunLabels(table, tuple(run.path / LABELS for run in runs))


def _data_of(runs: Sequence[Run], csv: Path | None, given: Mapping[str, Any]) -> DataConfig:
    """Settings to read the CSVs: as `given`, else those of all runs."""
    first = runs[0]
    for run in runs[1:]:
        files = [one.settings.val_csv or one.settings.train_csv for one in (run, first)]
        if csv is None and len({tuple(Path(name).resolve() for name in one) for one in files}) > 1:
            its, others = map(", ".join, files)
            raise UserError(
                f"{run.path} has its labels from {its}, {first.path} from {others}: {_GIVE_LABELS}"
            )
        for name in (*(_FIXED if csv is None else ()), *_GIVEN):
            own, other = getattr(run.reading, name), getattr(first.reading, name)
            if own != other and name not in given:
                how = f"give --{name} to read the labels" if name in _GIVEN else _GIVE_LABELS
                raise UserError(
                    f"{run.path} was trained with --{name} {own} and {first.path} with {other}: "
                    f"{how}"
                )
    reading = {name: getattr(first.reading, name) for name in _GIVEN} | dict(given)
    if csv is not None:
        for name, value in reading.items():
            if isinstance(value, list | tuple) and len(value) > 1:
                raise UserError(
                    f"{first.path} was trained with one --{name} for each of its CSVs: give the "
                    f"--{name} of {csv}"
                )
        return DataConfig(train_csv=(csv,), reading=SourcesReading(**reading))
    train, val = (tuple(map(Path, getattr(first.settings, f"{n}_csv"))) for n in ("train", "val"))
    soft = any(run.settings.soft_labels for run in runs)
    of_runs = first.reading.change(**reading)
    return DataConfig(train_csv=train, val_csv=val, soft_labels=soft, reading=of_runs)


def _read(data: DataConfig, runs: Sequence[Run]) -> LabelTable:
    """Read the hard labels of all predicted classes, in their order, without images."""
    names = list(dict.fromkeys(name for run in runs for name in run.predictions.class_names))
    validation = bool(data.val_csv)
    csvs = data.val_csv or data.train_csv
    if len(csvs) == 1 and data.reading.label_map is None:
        sheet = read_source_table(csvs[0], data.reading.of_csv(0))
        # a training label that no list of --val_csv has is 0
        listed = validation and sheet.lists
        names = [name for name in names if name in sheet.columns or listed] or names
    return gather(data, labels=names, validation=validation, images=False).hard()
