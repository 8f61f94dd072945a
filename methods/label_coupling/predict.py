"""Test images of a run: checked before training, predicted after it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import read_columns
from core.data.csv.label_values import label_value
from core.data.images.find_files import missing_remedy
from core.data.tables.anonymous import anonymize
from core.data.tables.images_to_predict import check_readable, find_images
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.io.atomic import check_writable
from core.models.checkpoint import load_facts
from core.runtime.fabric import worker_count
from core.training.dry_run import UPDATES
from core.training.finish import find_finished_folds, finish_run
from core.training.run import Preparation, Run
from ensemble.predict.config import MergeConfig, ModelsConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.predictor import Predictor
from ensemble.predict.write_csv import OutputOptions, predict_to_csv


def find_test_images(start: Preparation) -> LabelTable | None:
    """Find and check the test images, matched with the names of the training; None if not set.

    Raises UserError if there are none, one is unreadable, or --out_csv has other content.
    """
    config, table = start.config, start.prepared.table
    test, data = config.test, config.data
    if test.test_dir is None and test.test_csv is None:
        return None
    named = test.test_csv is not None and table.id_column in read_columns(test.test_csv)
    column = table.id_column if named else ""
    # without the source's name, which test images do not have
    ids = [name.partition("/")[2] for name in table.ids] if table.source_names else table.ids
    folder = test.test_dir or data.train_dir[0]
    remedy = missing_remedy("--test_dir")
    images = find_images(folder, test.test_csv, image_column=column, like=ids, remedy=remedy)
    images = replace(images, id_column=table.id_column)
    if config.run.dry_run:
        images = images.take(np.arange(len(images))[: UPDATES * config.loader.batch_size])
    if data.anonymous:
        images = anonymize(images)
    tested = () if test.test_csv is None else (test.test_csv,)
    check_writable(test.out_csv, (*data.train_csv, *data.val_csv, *tested), "--out_csv")
    _check_output(test.out_csv, [images.id_column, *table.class_names])
    check_readable(start.fabric, images, worker_count(config.loader.num_workers))
    return images


def finish_and_predict(run: Run, test: LabelTable | None) -> None:
    """Score the folds and write the report, then predict the `test` images, if any.

    They are predicted by all finished folds, or by the best one. Raises UserError as
    `predict_to_csv` does.
    """
    config, out_csv = run.config, run.config.test.out_csv
    other = "bce" if config.loss.loss == "asl" else "asl"
    try_next = ["--loss", other, "--out_dir", f"{config.run.out_dir}_{other}"]
    if test is not None:
        try_next += ["--out_csv", str(out_csv.with_stem(f"{out_csv.stem}_{other}"))]
    finish_run(run, try_next)
    if test is None:
        return
    done = find_finished_folds(run.folder, run.prepared.folds)
    checkpoints = [run.folder.files(fold).weights for fold in done]
    if not config.test.ensemble_folds:
        scores = [load_facts(path)["metrics"][config.loop.monitor] for path in checkpoints]
        # None: undefined for the labels of that fold
        values = [-np.inf if score is None else score for score in scores]
        checkpoints = [checkpoints[int(np.argmax(values))]]
    ensemble = Ensemble.load(ModelsConfig(checkpoints=tuple(checkpoints)))
    predict_to_csv(
        Predictor(run.fabric, ensemble, MergeConfig(use_tta=config.loop.tta)),
        test,
        out_csv,
        OutputOptions(overwrite=True),
        batch_size=config.loader.batch_size,
        workers=worker_count(config.loader.num_workers),
    )


def _check_output(path: Path, columns: Sequence[str]) -> None:
    """Raise UserError if the existing file `path` is not such predictions, for example labels."""
    if len(set(columns)) < len(columns):
        raise UserError(
            f"the class {columns[0]} has the name of the image column: rename the class"
        )
    if not path.exists():
        return
    try:
        there = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        there = pd.DataFrame()
    cells = pd.unique(there.iloc[:, 1:].to_numpy().ravel())
    labels = all(label_value(str(cell).strip()) is not None for cell in cells)
    if list(there) != list(columns) or labels:
        raise UserError(
            f"{path} is not predictions of these labels: give another --out_csv, or move the file"
        )
