"""Probabilities of several checkpoints for the same images, merged and written to a CSV."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from core.atomic import write_atomically
from core.config import LoaderConfig
from core.data.evaluation import evaluation_loader
from core.data.table import LABEL_VALUES, LabelTable
from core.errors import UserError
from core.prediction import predict
from ensemble.merge import weighted_mean
from ensemble.tta import VIEWS
from methods import load_model


def predict_to_csv(
    fabric: Fabric,
    checkpoints: Sequence[Path],
    images: LabelTable,
    names: Sequence[str],
    output: Path,
    *,
    shares: np.ndarray,
    views: str,
    loader: LoaderConfig,
) -> None:
    """Write the merged probabilities of `checkpoints` for `images`, whole or not at all.

    One row an image, in their order: its name in the column `images.id_column`, then a column for
    each class of `names`, which all checkpoints have. `shares` (M,) weigh the models. Says where
    the file is. Raises UserError where an image cannot be read or a probability is not finite.
    """
    predictions = []
    for number, checkpoint in enumerate(checkpoints, start=1):
        title = f"predicting, model {number}/{len(checkpoints)}"
        predictions.append(predict_images(fabric, checkpoint, images, names, views, loader, title))
    merged = weighted_mean(predictions, shares)
    if fabric.is_global_zero:
        frame = pd.DataFrame(merged, columns=list(names))
        frame.insert(0, images.id_column, images.ids)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        models = f"{len(checkpoints)} model{'s' if len(checkpoints) > 1 else ''}"
        print(f"predictions  {output} ({len(images):,} images by {models}, views: {views})")


def predict_images(
    fabric: Fabric,
    checkpoint: Path,
    images: LabelTable,
    names: Sequence[str],
    views: str,
    loader: LoaderConfig,
    title: str = "",
) -> np.ndarray:
    """Probabilities float32 (N, C) of one model at its own size, classes as in `names`."""
    model, info = load_model(checkpoint)
    model.to(memory_format=torch.channels_last).to(fabric.device)
    rows = np.arange(len(images))
    batches = evaluation_loader(fabric, images, rows, replace(loader, img_size=info.image_size))
    probabilities = predict(fabric, model, batches, rows, views=VIEWS[views], title=title)
    if not np.isfinite(probabilities).all():
        raise UserError(f"{checkpoint} gives probabilities that are not finite: nothing is written")
    return probabilities[:, [info.class_names.index(name) for name in names]]


def class_names(checkpoints: Sequence[Path]) -> list[str]:
    """The classes of the first checkpoint; each is read whole, before any time is spent.

    Raises UserError where there is none, one is not whole, or another one has other classes.
    """
    if not checkpoints:
        raise UserError("no checkpoint is given: name one or several with --checkpoints")
    names = [list(load_model(checkpoint)[1].class_names) for checkpoint in checkpoints]
    for checkpoint, other in zip(checkpoints, names, strict=True):
        if differing := sorted(set(names[0]) ^ set(other)):
            raise UserError(
                f"{checkpoint} and {checkpoints[0]} do not have the same classes: "
                f"{', '.join(differing)} in one of them only"
            )
    return names[0]


def check_output(path: Path, columns: Sequence[str]) -> None:
    """Raise UserError where `path` cannot be written, or holds something else than `columns`.

    Labels are something else: a CSV of ones and zeros is nobody's prediction.
    """
    if len(set(columns)) < len(columns):
        raise UserError(f"a class is named {columns[0]}, as the column of the images' names is")
    if path.is_dir() or any(above.is_file() for above in path.parents):
        raise UserError(f"{path} cannot be written: it is a folder, or lies below a file")
    if not path.exists():
        return
    try:
        there = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        there = pd.DataFrame()
    labels = there.iloc[:, 1:].isin(list(LABEL_VALUES)).all(axis=None)
    if list(there) != list(columns) or labels:
        raise UserError(
            f"{path} holds something else than predictions of these labels: name another file, or "
            "move it away"
        )
