"""Finished runs and prediction files as out-of-fold predictions, and their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.config.data import DataConfig, LabelReading
from core.config.training import flat
from core.data.sources import read_sheet
from core.data.tables.anonymous import with_names
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.errors import UserError, some
from core.io.atomic import write_atomically
from core.io.untrusted_files import read_json
from core.runs.folder import FoldFiles, RunFolder
from core.runs.prediction_files import Predictions, read_predictions
from core.training.resume import is_finished


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds of its finished folds."""

    path: Path
    predictions: Predictions
    """of every image of these folds, each by the model that did not see it"""
    checkpoints: tuple[Path, ...]
    files: tuple[Path, ...]
    """all that was read"""
    labels: tuple[Path, ...]
    """the CSVs that its images' labels are from, as its settings name them"""
    reading: LabelReading
    """how these were read"""
    settings: Mapping[str, Any]
    note: str
    """a sentence on folds that are left out, or nothing"""
    seed: int | None = None
    """of its folds, where its settings name one"""


def member_names(paths: Sequence[Path]) -> list[str]:
    """A name for each run folder: that of the folder, or the whole path where two share it.

    Raises UserError where a folder is there twice.
    """
    places = [path.resolve() for path in paths]
    names = [place.name for place in places]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"--runs names {path} more than once")
    return [
        str(place) if names.count(name) > 1 else name
        for name, place in zip(names, places, strict=True)
    ]


def read_run(path: Path) -> Run:
    """Read the settings and the finished folds of the run folder `path`.

    Raises UserError where it is none, none of its folds is finished, the weights or predictions of
    one that is are gone, or an image is in two of them.
    """
    settings = _read_settings(path / "config.json")
    folder = RunFolder(path, settings["model"])
    # with an official split there is one fold, whatever --folds says
    folds = 1 if settings["val_csv"] else settings["folds"]
    every = [folder.files(fold) for fold in range(1, folds + 1)]
    done = [files for files in every if is_finished(files.state)]
    if not done:
        raise UserError(f"{path} has no fold that is trained to the end: finish that run first")
    for files in done:
        for needed in (files.weights, files.predictions):
            if not needed.is_file():
                raise UserError(
                    f"{needed} is gone, and fold {files.fold} of that run is finished: put it back"
                )
    note = ""
    if len(done) < folds:
        numbers = ", ".join(str(files.fold) for files in done)
        note = f"Of {path} only fold {numbers} of {folds} is trained to the end and taken."
    return Run(
        path=path,
        predictions=join_predictions(path, [files.predictions for files in done]),
        checkpoints=tuple(files.weights for files in done),
        files=(path / "config.json", *_files(done)),
        labels=tuple(map(Path, settings["val_csv"] or settings["train_csv"])),
        reading=_reading_of(settings),
        settings=settings,
        note=note,
        seed=settings["seed"],
    )


def _reading_of(settings: Mapping[str, Any]) -> LabelReading:
    """How a run with these settings read its labels."""
    label_map = settings["label_map"] and Path(settings["label_map"])
    others = {name: settings[name] for name in flat(LabelReading())}
    return LabelReading(**others | {"source": tuple(settings["source"]), "label_map": label_map})


def _check_same_images(runs: Sequence[Run], tables: Sequence[Predictions]) -> None:
    """Raise UserError where runs of which folds are left out hold out different images."""
    first = runs[0]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        alone = len(set(table.ids) ^ set(tables[0].ids))
        if not (run.note or first.note) or not alone:
            continue
        own, other = (f"--folds {one.settings['folds']} --seed {one.seed}" for one in (run, first))
        why = " ".join(one.note for one in (first, run) if one.note)
        if own != other:
            why = f"its folds are of {own} and those of {first.path} of {other}. {why}"
        raise UserError(
            f"{alone:,} images of {run.path} or {first.path} are in one of them only: {why} Train "
            "the same folds in both, or take the images that all runs have with --common"
        )


def of_trained_folds(
    runs: Sequence[Run], labels: LabelTable, *, common: bool
) -> tuple[LabelTable, list[Predictions], list[str]]:
    """Labels of the images that runs predict, their predictions by real names, and a sentence.

    Images are left out where all runs leave the same folds out; the sentence counts them. Unless
    `common`, raises UserError where runs leave out others.
    """
    tables = [
        replace(one.predictions, ids=with_names(one.predictions.ids, labels.ids)) for one in runs
    ]
    if not common:
        _check_same_images(runs, tables)
    known = set(tables[0].ids)
    if not all(one.note for one in runs) or any(set(table.ids) != known for table in tables):
        return labels, tables, []
    rows = np.flatnonzero([name in known for name in labels.ids])
    return (
        labels.take(rows),
        tables,
        [f"{len(rows):,} of {len(labels):,} images are of the folds that the runs have trained."],
    )


def _files(done: Sequence[FoldFiles]) -> list[Path]:
    return [file for one in done for file in (one.weights, one.state, one.predictions)]


def join_predictions(path: Path, files: Sequence[Path]) -> Predictions:
    """The predictions files of several folds as one, named `path`, classes matched by name.

    Raises UserError where their classes differ or an image is in two of them.
    """
    parts = [read_predictions(file) for file in files]
    first = parts[0]
    seen: dict[str, Path] = {}
    for part in parts:
        if differing := sorted(set(first.class_names) ^ set(part.class_names)):
            raise UserError(
                f"{part.path} and {first.path} do not have the same classes: {some(differing)} in "
                "one of them only; give files of the folds of one run"
            )
        if twice := [name for name in part.ids if name in seen]:
            raise UserError(
                f"{len(twice):,} image(s) of {part.path} are in {seen[twice[0]]} too: "
                f"{some(twice)}; each image needs one prediction, by a model that did not see it"
            )
        seen |= dict.fromkeys(part.ids, part.path)
    rows = [part.select(part.ids, first.class_names) for part in parts]
    return Predictions(path, first.id_column, list(seen), first.class_names, np.concatenate(rows))


@dataclass(frozen=True)
class LabelSource:
    """The CSVs of labels, and how they are to be read."""

    data: DataConfig
    validation: bool = False
    """Whether the labels are those of --val_csv"""

    @property
    def csvs(self) -> tuple[Path, ...]:
        """The files themselves."""
        return self.data.val_csv if self.validation else self.data.train_csv

    @property
    def gone(self) -> list[Path]:
        """The files that are not there, with the label map."""
        read = (*self.csvs, self.data.reading.label_map)
        return [path for path in read if path is not None and not path.exists()]

    @property
    def told(self) -> Path:
        """The files as one, for a sentence."""
        return Path(", ".join(map(str, self.csvs)))


def read_labels(source: LabelSource, predictions: Sequence[Predictions]) -> tuple[LabelTable, bool]:
    """The labels of the classes that any of `predictions` has, in their order.

    And whether they are those of one CSV as it is, which other commands can read just so. Raises
    UserError as `gather` does, and where no CSV has any of the classes.
    """
    names = list(dict.fromkeys(name for table in predictions for name in table.class_names))
    data, images = source.data, {"validation": source.validation, "images": False}
    if len(source.csvs) > 1 or data.reading.label_map is not None:
        return gather(data, labels=names, **images), False
    sheet = read_sheet(source.csvs[0], data.reading)
    # of what the run was trained with, a label that no list of --val_csv names is 0
    listed = source.validation and sheet.lists
    there = [name for name in names if name in sheet.columns or listed]
    table = gather(data, labels=there or names, **images)
    taken, usual = data.reading, LabelReading()
    whole = taken.official_split == "all" or source.validation or sheet.official_test is None
    same = [getattr(taken, n) == getattr(usual, n) for n in ("source", "views", "readers")]
    return table, whole and all(same)


def shared_source(
    runs: Sequence[Run], given: Mapping[str, Any], labels: Path | None
) -> LabelSource:
    """Where labels are and how to read them: what is `given`, else what all runs' settings say.

    `given` by flag name, where they are not empty. Raises UserError where runs differ in something
    that is not given.
    """
    first = runs[0]
    if labels is None:
        for run in runs[1:]:
            _refuse_other_labels(run, first)
    for run, name in product(runs[1:], given):
        own, other = getattr(run.reading, name), getattr(first.reading, name)
        if own != other and not given[name]:
            raise UserError(
                f"{run.path} was trained with --{name} {own} and {first.path} with {other}: say "
                f"with --{name} how to read the labels"
            )
    told = {name: value or getattr(first.reading, name) for name, value in given.items()}
    if labels is not None:
        return LabelSource(DataConfig(train_csv=(labels,), reading=LabelReading(**told)))
    train, val = (tuple(map(Path, first.settings[name])) for name in ("train_csv", "val_csv"))
    data = DataConfig(train_csv=train, val_csv=val, reading=first.reading.change(**told))
    return LabelSource(data, bool(val))


def write_labels(path: Path, labels: LabelTable) -> None:
    """Write ImageID, PatientID and a column a class (1, 0, blank), whole or not at all."""
    frame = pd.DataFrame(labels.targets, columns=list(labels.class_names))
    if labels.patients is not None:
        frame.insert(0, "PatientID", labels.patients)
    frame.insert(0, "ImageID", labels.ids)
    write_atomically(path, lambda part: frame.to_csv(part, index=False, float_format="%g"))


def _refuse_other_labels(run: Run, first: Run) -> None:
    """Refuse two runs whose labels are not the same ones."""
    which = "say with --labels which file to score against"
    if [path.resolve() for path in run.labels] != [path.resolve() for path in first.labels]:
        raise UserError(
            f"{run.path} has its labels from {', '.join(map(str, run.labels))} and {first.path} "
            f"from {', '.join(map(str, first.labels))}: {which}"
        )
    for name in ("source", "official_split", "views", "readers", "label_map"):
        own, other = getattr(run.reading, name), getattr(first.reading, name)
        if own != other:
            raise UserError(
                f"{run.path} was trained with --{name} {own} and {first.path} with {other}: {which}"
            )


def _read_settings(path: Path) -> dict[str, Any]:
    """What is needed of the config.json of a run. Raises UserError where it is not whole."""
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(
            f"{path.parent} is no run folder: {path} cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}; give another run folder") from error
    # older runs had fewer settings, and read labels as a LabelReading does by default
    found = flat(LabelReading()) | {"seed": None} | found
    for name in ("train_csv", "val_csv"):
        # a run of one file, before several could be given
        if isinstance(found.get(name, 0), (str, type(None))):
            found[name] = [found[name]] if found[name] else []
    kinds: dict[str, tuple[type, ...]] = {"model": (str,), "folds": (int,)}
    kinds |= dict.fromkeys(flat(LabelReading()), (str,))
    kinds |= dict.fromkeys(("train_csv", "val_csv", "source"), (list,))
    kinds |= dict.fromkeys(("blank", "label_map"), (str, type(None)))
    kinds["seed"] = (int, type(None))
    texts: list[str] = []
    for name, kind in kinds.items():
        value = found.get(name)
        items = value if isinstance(value, list) else [value]
        texts += [item for item in items if isinstance(item, str)]
        whole = not isinstance(value, list) or all(isinstance(item, str) for item in value)
        if name not in found or type(value) not in kind or not whole:
            raise UserError(f"{path} has no usable setting '{name}': give another run folder")
    changed = found["model"] != Path(found["model"]).name or not found["train_csv"]
    if changed or "\0" in "".join(texts) or not 1 <= found["folds"] <= 1000:
        raise UserError(f"{path} was changed after the run: give another run folder")
    return {name: found[name] for name in kinds}
