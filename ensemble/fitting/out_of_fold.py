"""Finished runs as out-of-fold predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from core.config.data import LabelReading
from core.data.tables.anonymous import with_names
from core.data.tables.label_table import LabelTable
from core.errors import UserError, some
from core.io.untrusted_files import read_json
from core.runs.folder import RunFolder
from core.runs.prediction_files import Predictions, read_predictions
from core.training.resume import is_finished


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is needed of the config.json of a run."""

    model: str
    folds: Annotated[int, Meta(ge=1, le=1000)]
    train_csv: tuple[str, ...]
    val_csv: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds of its finished folds."""

    path: Path
    predictions: Predictions
    """of every image of these folds, each by the model that did not see it"""
    checkpoints: tuple[Path, ...]
    files: tuple[Path, ...]
    """all that was read"""
    settings: RunSettings
    reading: LabelReading
    """how it read its labels"""
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
    settings, reading = _read_settings(path / "config.json")
    folder = RunFolder(path, settings.model)
    # with an official split there is one fold, whatever --folds says
    folds = 1 if settings.val_csv else settings.folds
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
    read = [file for one in done for file in (one.weights, one.state, one.predictions)]
    return Run(
        path,
        join_predictions(path, [files.predictions for files in done]),
        tuple(files.weights for files in done),
        (path / "config.json", *read),
        settings,
        reading,
        note,
    )


def _read_settings(path: Path) -> tuple[RunSettings, LabelReading]:
    """The settings of a run, and how it read labels. Raises UserError where they are not whole."""
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(
            f"{path.parent} is no run folder: {path} cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}; give another run folder") from error
    for name in ("train_csv", "val_csv"):
        # a run of one file, before several could be given
        if isinstance(found.get(name, 0), (str, type(None))):
            found[name] = [found[name]] if found[name] else []
    try:
        settings = msgspec.convert(found, RunSettings)
        reading = msgspec.convert(found, LabelReading, dec_hook=lambda kind, value: kind(value))
    except (ValueError, TypeError) as error:
        reason = str(error).replace("`", "").replace(" - at $", " in ")
        raise UserError(f"{path} has no usable settings ({reason}): give another folder") from error
    texts = [*settings.train_csv, *settings.val_csv, str(reading.label_map), *reading.source]
    changed = settings.model != Path(settings.model).name or not settings.train_csv
    if changed or "\0" in "".join(texts):
        raise UserError(f"{path} was changed after the run: give another run folder")
    return settings, reading


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


def _check_same_images(runs: Sequence[Run], tables: Sequence[Predictions]) -> None:
    """Raise UserError where runs of which folds are left out hold out different images."""
    first = runs[0]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        alone = len(set(table.ids) ^ set(tables[0].ids))
        if not (run.note or first.note) or not alone:
            continue
        own, other = (
            f"--folds {one.settings.folds} --seed {one.settings.seed}" for one in (run, first)
        )
        why = " ".join(one.note for one in (first, run) if one.note)
        if own != other:
            why = f"its folds are of {own} and those of {first.path} of {other}. {why}"
        raise UserError(
            f"{alone:,} images of {run.path} or {first.path} are in one of them only: {why} Train "
            "the same folds in both, or take the images that all runs have with --common"
        )
