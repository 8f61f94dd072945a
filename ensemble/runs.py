"""Finished runs and prediction files as out-of-fold predictions, and their labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.columns import read_columns
from core.data.table import LabelTable, read_table
from core.errors import UserError, some
from core.resume import is_finished
from core.runfolder import FoldFiles, RunFolder
from ensemble.tables import Predictions, read_predictions

# settings of a run by which its labels were read
COLUMN_SETTINGS = ("image_column", "patient_column", "uncertain", "blank")


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds of its finished folds."""

    path: Path
    predictions: Predictions
    """of every image of these folds, each by the model that did not see it"""
    checkpoints: tuple[Path, ...]
    files: tuple[Path, ...]
    """all that was read"""
    labels: Path
    """the CSV that its images' labels are from, as its settings name it"""
    settings: Mapping[str, Any]
    note: str
    """a sentence on folds that are left out, or nothing"""


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
        labels=Path(settings["val_csv"] or settings["train_csv"]),
        settings=settings,
        note=note,
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


def read_labels(
    path: Path, predictions: Sequence[Predictions], settings: Mapping[str, Any]
) -> LabelTable:
    """The labels in `path` of the classes that any of `predictions` has, in their order.

    `settings` as in a run's: image_column, patient_column, uncertain, blank. Raises UserError as
    `read_table` does, and where the CSV has none of the classes.
    """
    names = list(dict.fromkeys(name for table in predictions for name in table.class_names))
    columns = read_columns(path)
    there = [name for name in names if name in columns]
    return read_table(
        path,
        None,
        there or names,
        image_column=settings["image_column"] or None,
        patient_column=settings["patient_column"] or None,
        uncertain=settings["uncertain"],
        blank=settings["blank"],
    )


def shared_settings(
    runs: Sequence[Run], given: Mapping[str, Any], labels: Path | None
) -> tuple[Path, dict[str, Any]]:
    """(labels CSV, how to read it): what is `given`, else what the settings of all runs say.

    Raises UserError where they differ in something that is not given.
    """
    told = {name: value for name, value in given.items() if value}
    first = runs[0]
    for run in runs[1:]:
        if labels is None and run.labels.resolve() != first.labels.resolve():
            raise UserError(
                f"{run.path} has its labels from {run.labels} and {first.path} from "
                f"{first.labels}: say with --labels which file to score against"
            )
        for name in COLUMN_SETTINGS:
            # columns are those of a file, and another one may be given
            if name not in told and run.settings[name] != first.settings[name]:
                raise UserError(
                    f"{run.path} was trained with --{name} {run.settings[name]} and {first.path} "
                    f"with {first.settings[name]}: say with --{name} how to read the labels"
                )
    return labels or first.labels, {name: first.settings[name] for name in COLUMN_SETTINGS} | told


def _read_settings(path: Path) -> dict[str, Any]:
    """What is needed of the config.json of a run. Raises UserError where it is not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path.parent} is no run folder: {path} cannot be read ({error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file ({error}): give another run folder") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings: give another run folder")
    kinds: dict[str, tuple[type, ...]] = {"model": (str,), "folds": (int,), "train_csv": (str,)}
    kinds |= {"val_csv": (str, type(None)), "blank": (str, type(None))}
    kinds |= dict.fromkeys(("image_column", "patient_column", "uncertain"), (str,))
    for name, kind in kinds.items():
        if name not in found or type(found[name]) not in kind:
            raise UserError(f"{path} has no usable setting '{name}': give another run folder")
    model, texts = found["model"], [value for value in found.values() if isinstance(value, str)]
    if model != Path(model).name or not 1 <= found["folds"] <= 1000 or "\0" in "".join(texts):
        raise UserError(f"{path} was changed after the run: give another run folder")
    return {name: found[name] for name in kinds}
