"""The test images of a run: looked at before training, predicted after it."""

from dataclasses import replace
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from core.checkpoint import load_facts
from core.closing import finished_folds
from core.data.columns import read_columns
from core.data.prepare import Prepared
from core.data.table import LabelTable
from core.errors import UserError
from core.runfolder import RunFolder
from core.runtime import worker_count
from ensemble.images import check_readable, find_images
from ensemble.merge import model_shares
from ensemble.predictions import check_output, predict_to_csv
from methods.label_coupling.config import Config


def find_test_images(fabric: Fabric, config: Config, table: LabelTable) -> LabelTable | None:
    """The images to predict, their names in a column called as in `table`; None for none.

    Raises UserError where there are none, where one cannot be read, and where --out_csv holds
    something else than such predictions.
    """
    test, data = config.test, config.data
    if test.test_dir is None and test.test_csv is None:
        return None
    column = ""
    if test.test_csv is not None and table.id_column in read_columns(test.test_csv):
        column = table.id_column
    folder = test.test_dir or data.train_dir
    images = find_images(folder, test.test_csv, image_column=column, like=table.ids)
    images = replace(images, id_column=table.id_column)
    for path in (data.train_csv, data.val_csv, test.test_csv):
        if path is not None and test.out_csv.resolve() == path.resolve():
            raise UserError(f"--out_csv {test.out_csv} is a file that is read: name another one")
    check_output(test.out_csv, [images.id_column, *table.class_names])
    check_readable(fabric, images, worker_count(config.loader.num_workers))
    return images


def predict_test_images(
    fabric: Fabric, images: LabelTable, folder: RunFolder, prepared: Prepared, config: Config
) -> None:
    """Write --out_csv by the folds that are trained, or by the best of them."""
    names = prepared.table.class_names
    done = finished_folds(folder, prepared.folds)
    checkpoints = [folder.files(fold).weights for fold in done]
    if not config.test.ensemble_folds:
        values = [_monitored(load_facts(path), config.loop.monitor) for path in checkpoints]
        checkpoints = [checkpoints[int(np.argmax(values))]]
    predict_to_csv(
        fabric,
        checkpoints,
        images,
        names,
        config.test.out_csv,
        shares=model_shares((), len(checkpoints)),
        views="flip" if config.loop.tta else "none",
        loader=config.loader,
    )


def _monitored(facts: dict[str, Any], monitor: str) -> float:
    """What a checkpoint says of its monitor; -inf where it says nothing."""
    metrics = facts.get("metrics")
    value = metrics.get(monitor) if isinstance(metrics, dict) else None
    return float(value) if isinstance(value, int | float) else -np.inf
