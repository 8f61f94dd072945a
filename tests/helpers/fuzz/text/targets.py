"""Functions called on hostile texts in the watched child; each checks what it accepts."""

import csv
import importlib
import json
import os
import random
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import core.runs.folder
import core.runs.log
from core.config.command_line import parse
from core.config.training import SplitConfig
from core.data.splits.folds import write_folds
from core.data.splits.prepare import prepare
from core.data.tables import LabelTable, read_table
from core.data.tables.images_to_predict import find_images
from core.errors import escape_control
from core.report.plots.training_curves import curves_figure
from core.runs.folder import RunFolder
from core.runs.prediction_files import read_predictions
from core.training.finish import _read_history
from ensemble.infer import main as _infer  # noqa: F401  imported before the fork
from ensemble.predict.calibration import read_calibration
from ensemble.predict.config import ModelsConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.ensemble_json import read_recipe
from ensemble.predict.merge import model_shares
from ensemble.predict.rows import read_sample
from ensemble.scoring.operating_points import read_thresholds
from tests.helpers.data.two_sources import data_config
from tests.helpers.faults.preloaded_modules import command_module
from tests.helpers.fuzz.mutations import spoil

for _name in ("calibrate", "choose", "evaluate", "scoring.outputs", "scoring.tables"):
    importlib.import_module(f"ensemble.{_name}")
for _name in ("fitting.calibrators", "fitting.out_of_fold", "fitting.weights", "scoring.score"):
    importlib.import_module(f"ensemble.{_name}")
METHOD = importlib.import_module("methods.standard_head.config").PRESETS
# which asks git, and no file
core.runs.folder.describe_start = partial(
    dict, python="3.12", commit="def", versions={"torch": "2.1"}
)
OUT = Path(os.environ["FUZZ_OUT"])
HERE = OUT / "here"


def spoiled(good: str, victim: str, seed: int | str) -> Path:
    """Fresh copy of the folder `good` with its file `victim` changed: by a seed, or to a text."""
    # by their full names, which the guard can judge
    for path in sorted(HERE.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    shutil.copytree(good, HERE, dirs_exist_ok=True)
    if victim:
        path = HERE / victim
        good_bytes = path.read_bytes()
        path.write_bytes(
            seed.encode() if isinstance(seed, str) else spoil(good_bytes, seed, text=True)
        )
    return HERE


def source(good: str, name: str, victim: str, seed: int) -> None:
    """A table of any kind, without its images."""
    folder, chance = spoiled(good, victim, seed), random.Random(seed)
    table = read_table(
        folder / name,
        None,
        views=chance.choice((*6 * ["all"], "frontal", "lateral")) if victim else "all",
        official_split=chance.choice((*6 * ["all"], "train", "test")) if victim else "train",
        uncertain=chance.choice(("ignore", "zero", "one")),
        blank=chance.choice((None, "zero", "unknown")),
        readers=chance.choice(("majority", "any")),
    )
    check_table(table)


def plain(path: str) -> None:
    """A plain table."""
    check_table(read_table(path, None, blank="unknown"))


def mutated_plain(good: str, name: str, seed: int) -> None:
    """That of a file that is spoiled here."""
    plain(str(spoiled(good, name, seed) / name))


def check_table(table: LabelTable) -> None:
    """Check the invariants of a table, and that its notes contain no control characters."""
    count = len(table.ids)
    assert count == len(set(table.ids)) == len(table.targets)
    assert all(table.ids)
    assert table.class_names
    assert len(set(table.class_names)) == len(table.class_names) == table.targets.shape[1]
    assert np.isin(table.targets[~np.isnan(table.targets)], (0, 1)).all()
    for text in (*table.notes, *table.class_names):
        assert escape_control(text) == text
    for texts in (table.patients, table.studies, table.views):
        assert texts is None or len(texts) == count


def training(good: str, victim: str, seed: int) -> None:
    """Input of a training up to the model, and the folds file that it writes."""
    folder, chance = spoiled(good, victim, seed), random.Random(seed)
    other = folder / "val.csv" if chance.random() < 0.3 else None
    data = data_config(
        train_csv=(folder / "train.csv",),
        train_dir=(folder / "images",),
        val_csv=() if other is None else (other,),
        label_map=folder / "map.csv" if chance.random() < 0.5 or victim == "map.csv" else None,
        blank="zero",
    )
    said: list[str] = []
    prepared = prepare(data, SplitConfig(folds=2), said.append)
    check_table(prepared.table)
    for sentence in said:
        assert escape_control(sentence.replace("\n", " ")) == sentence.replace("\n", " ")
    assert len(prepared.fingerprint()) == 64
    root = os.path.realpath(folder / "images")
    assert all(os.path.realpath(path).startswith(root) for path in prepared.table.paths)
    write_folds(folder / "folds.csv", prepared.table, prepared.assignment)
    with (folder / "folds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ImageID"] for row in rows] == prepared.table.ids


def to_predict(good: str, victim: str, seed: int) -> None:
    """The images of a --test_csv, and a sample submission."""
    folder = spoiled(good, victim, seed)
    study = "StudyID" if seed % 2 else ""
    images = find_images(folder / "images", folder / "test.csv", group_by=study)
    root = os.path.realpath(folder / "images")
    assert all(os.path.realpath(path).startswith(root) for path in images.paths)
    sample = read_sample(folder / "sample.csv")
    assert len(set(sample.ids)) == len(sample.ids)


def command(good: str, victim: str, seed: int, module: str, *arguments: str) -> None:
    """A whole command; `@name` is a file of the folder."""
    folder = spoiled(good, victim, seed)
    os.chdir(folder)
    words = [re.sub("^@", f"{folder}/", word) for word in arguments]
    sys.argv = [module, *words]
    command_module(module).main()


def run_folder(good: str, victim: str, seed: int | str, overwrite: bool) -> None:
    """Settings, records and predictions of a run folder on resume."""
    folder = spoiled(good, victim, seed) / "one"
    settings = json.loads(Path(good, "one", "config.json").read_text())
    run = RunFolder(folder, settings["model"], "identity")
    try:
        data = {
            **{"data": "fingerprint", "parts": {"images": "digest"}, "files": "digest"},
            **{"starting_weights": None, "labels": []},
        }
        notes = run.open(settings, data, overwrite=overwrite)
    finally:
        run.release()
    assert all(escape_control(sentence) == sentence for sentence in notes)
    if overwrite:
        return
    core.runs.log.truncate_log(run.metrics, 1, 1)
    history = _read_history(run.metrics)
    if history is not None:
        curves_figure(history)
    for fold in (1, 2):
        read = read_predictions(run.files(fold).predictions).probabilities
        assert ((read >= 0) & (read <= 1)).all()


def configuration(path: str) -> None:
    """The settings of a training from a JSON file."""
    parse(METHOD, arguments=["--config", path])


def mutated_json(kind: str, good: str, name: str, seed: int) -> None:
    """A JSON file that is spoiled here, read as what it is."""
    path = spoiled(good, name, seed) / name
    kinds = {"ensemble": ensemble, "calibration": calibration, "configuration": configuration}
    kinds[kind](str(path))


def ensemble(path: str) -> None:
    """An ensemble.json up to its checkpoints, which are not there."""
    checkpoints, weights, classes = read_recipe(Path(path))
    shares = model_shares(weights, len(checkpoints))
    assert abs(shares.sum() - 1) < 1e-9
    assert (shares >= 0).all()
    assert classes
    Ensemble.load(ModelsConfig(ensemble=Path(path)))


def calibration(path: str) -> None:
    """A calibration.json, applied to probabilities."""
    read = read_calibration(Path(path))
    names = list(read.classes)
    grid = np.linspace(0, 1, 101)
    before = np.repeat(grid[:, None], len(names), axis=1)
    after = read.apply(before, names)
    for probabilities in (after, read.gate(after, names)):
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(after, axis=0) >= -1e-12).all(), "a map that falls"
    thresholds = read_thresholds(path, names, gated=False)
    assert ((thresholds > 0) | np.isnan(thresholds)).all()
    pd.DataFrame(after, columns=names).to_csv(OUT / "calibrated.csv")
