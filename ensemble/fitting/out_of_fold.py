"""Out-of-fold predictions of finished runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from core.config.data import SourcesReading
from core.data.tables.anonymous import restore_names
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first
from core.io.untrusted_files import read_json
from core.runs.folder import RunFolder
from core.runs.prediction_files import Predictions, read_predictions
from core.training.resume import is_finished
from ensemble.scoring.comparison import short_names


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings read from a run's config.json."""

    model: str
    folds: Annotated[int, Meta(ge=1, le=1000)]
    train_csv: tuple[str, ...]
    val_csv: tuple[str, ...] = ()
    soft_labels: bool = False
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """Finished folds of a run folder."""

    path: Path
    predictions: Predictions  # out-of-fold, of every image of these folds
    folds: NDArray[np.int64]  # (N,) number of each image's fold, from 1
    checkpoints: tuple[Path, ...]
    files: tuple[Path, ...]  # all files that were read
    settings: RunSettings
    reading: SourcesReading  # settings by which it read its labels
    note: str  # a sentence on folds that are left out


def member_names(paths: Sequence[Path]) -> list[str]:
    """Name of each run folder, or its path if two share it. Raises UserError for duplicates."""
    _check_once(paths)
    return list(short_names([path.resolve() for path in paths]).values())


def _check_once(paths: Sequence[Path]) -> None:
    places = [path.resolve() for path in paths]
    if twice := [path for path in paths if places.count(path.resolve()) > 1]:
        raise UserError(f"{twice[0]} is given more than once: give each once")


def read_files_and_runs(paths: Sequence[Path]) -> tuple[list[Predictions], list[Run]]:
    """Predictions in each path, a CSV or a run folder; and the runs among them.

    Raises UserError for a duplicate path, and as `read_predictions` and `read_run` do.
    """
    _check_once(paths)
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]} is missing: give a CSV of predictions or a run folder")
    runs = {path: read_run(path) for path in paths if path.is_dir()}
    tables = [runs[p].predictions if p in runs else read_predictions(p) for p in paths]
    return tables, list(runs.values())


def describe_folds(runs: Sequence[Run], *, anonymous: bool = False) -> str:
    """Describe the trained folds of a run, or the common folds of several runs.

    `anonymous`: names without folders.
    """
    names = short_names([run.path for run in runs], anonymous=anonymous).values()
    totals = [1 if run.settings.val_csv else run.settings.folds for run in runs]
    trained = [sorted({*run.folds.tolist()}) for run in runs]
    counts = [
        f"{', '.join(map(str, numbers))} of {total}"
        for numbers, total in zip(trained, totals, strict=True)
    ]
    if len(runs) == 1:
        return counts[0]
    each = "; ".join(f"{name}: {one}" for name, one in zip(names, counts, strict=True))
    divisions = [dict(zip(run.predictions.ids, run.folds.tolist(), strict=True)) for run in runs]
    shared = set(divisions[0]).intersection(*divisions)
    if any(one[name] != divisions[0][name] for one in divisions for name in shared):
        return f"divided differently ({each}): the images that all runs predicted are scored"
    numbers = sorted(set(trained[0]).intersection(*trained))
    return f"common to all runs: {', '.join(map(str, numbers)) or 'none'} ({each})"


def read_run(path: Path) -> Run:
    """Read the settings and the finished folds of the run folder `path`.

    Raises UserError if it is not a run folder, has no finished fold, lacks the weights or
    predictions of a finished fold, or has an image in two folds.
    """
    settings, reading = _read_settings(path / "config.json")
    folder = RunFolder(path, settings.model)
    # with an official split there is one fold for any --folds
    folds = 1 if settings.val_csv else settings.folds
    every = [folder.files(fold) for fold in range(1, folds + 1)]
    done = [files for files in every if is_finished(files.state)]
    if not done:
        raise UserError(f"{path} has no finished fold: rerun its training command to resume")
    read = [file for one in done for file in (one.weights, one.state, one.predictions)]
    if gone := [file for file in read if not file.is_file()]:
        raise UserError(f"{gone[0]} of a finished fold is missing: put it back")
    note = ""
    if len(done) < folds:
        numbers = ", ".join(str(files.fold) for files in done)
        note = f"Only fold {numbers} of {folds} of {path} is finished and used."
    predictions, sizes = join_predictions(path, [files.predictions for files in done])
    return Run(
        path,
        predictions,
        folds=np.repeat([files.fold for files in done], sizes),
        checkpoints=tuple(files.weights for files in done),
        files=(path / "config.json", *read),
        settings=settings,
        reading=reading,
        note=note,
    )


def _read_settings(path: Path) -> tuple[RunSettings, SourcesReading]:
    """Settings of a run, and how it read labels. Raises UserError if they are invalid."""
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(
            f"{path.parent} is not a run folder: {path} cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}; give another run folder") from error
    for name in ("train_csv", "val_csv"):
        # a run of an older version, with one file
        if isinstance(found.get(name, 0), (str, type(None))):
            found[name] = [found[name]] if found[name] else []
    try:
        settings = msgspec.convert(found, RunSettings)
        reading = msgspec.convert(found, SourcesReading, dec_hook=lambda kind, value: kind(value))
    except (ValueError, TypeError) as error:
        reason = str(error).replace("`", "").replace(" - at $", " in ")
        raise UserError(f"{path} has invalid settings ({reason}): give another folder") from error
    texts = [*settings.train_csv, *settings.val_csv, str(reading.label_map), *reading.source]
    changed = settings.model != Path(settings.model).name or not settings.train_csv
    if changed or "\0" in "".join(texts):
        raise UserError(f"{path} was changed after the run: give another run folder")
    return settings, reading


def join_predictions(path: Path, files: Sequence[Path]) -> tuple[Predictions, list[int]]:
    """Concatenate prediction files of several folds; returns them and the images in each file.

    Classes are matched by name; `path` names the result. Raises UserError if classes differ or
    an image is in two files.
    """
    parts = [read_predictions(file) for file in files]
    first = parts[0]
    seen: dict[str, Path] = {}
    for part in parts:
        if differing := sorted(set(first.class_names) ^ set(part.class_names)):
            raise UserError(
                f"{list_first(differing)} only in one of {part.path} and {first.path}, folds of "
                "one run: train it again"
            )
        if twice := [name for name in part.ids if name in seen]:
            raise UserError(
                f"{len(twice):,} image(s) of {part.path} are in {seen[twice[0]]} too: "
                f"{list_first(twice)}; each image needs one out-of-fold prediction"
            )
        seen |= dict.fromkeys(part.ids, part.path)
    rows = np.concatenate([part.select(part.ids, first.class_names) for part in parts])
    found = Predictions(path, first.id_column, list(seen), first.class_names, rows)
    return found, [len(part.ids) for part in parts]


def restrict_to_trained_folds(
    runs: Sequence[Run], labels: LabelTable, *, common: bool
) -> tuple[LabelTable, list[Predictions], list[str]]:
    """Labels of the images that all runs predict, their predictions by image name, and a note.

    The note counts images of folds that no run has trained. Unless `common`, raises UserError if
    the runs have trained different folds.
    """
    names = [restore_names(one.predictions.ids, labels.ids) for one in runs]
    tables = [replace(one.predictions, ids=ids) for one, ids in zip(runs, names, strict=True)]
    known, first = set(names[0]), runs[0]
    for run, ids in zip(runs, names, strict=True):
        alone = len(known.symmetric_difference(ids))
        if not alone or not (run.note or first.note):
            continue
        if common:
            return labels, tables, []
        own, other = (
            f"{one.path} has --folds {one.settings.folds} --seed {one.settings.seed}. {one.note}"
            for one in (first, run)
        )
        raise UserError(
            f"{alone:,} images are only in one of {first.path} and {run.path}: {own} {other} Train "
            "the same folds in both, or use the images that all runs have with --common"
        )
    if not all(one.note for one in runs):
        return labels, tables, []
    rows = np.flatnonzero([name in known for name in labels.ids])
    note = f"{len(rows):,} of {len(labels):,} images are in the trained folds."
    return labels.take(rows), tables, [note]
