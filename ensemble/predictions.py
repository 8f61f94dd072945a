"""Probabilities of several checkpoints for the same images, merged and written to a CSV."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from core.atomic import write_atomically
from core.checkpoint import load_facts
from core.config import LoaderConfig
from core.data.evaluation import evaluation_loader
from core.data.table import LabelTable
from core.errors import UserError
from core.prediction import predict
from ensemble.merge import model_shares, weighted_mean
from ensemble.tta import VIEWS
from methods import load_model


def predict_to_csv(
    fabric: Fabric,
    checkpoints: Sequence[Path],
    images: LabelTable,
    output: Path,
    *,
    weights: Sequence[float] = (),
    views: str,
    loader: LoaderConfig,
) -> None:
    """Write the merged probabilities of `checkpoints` for `images`, whole or not at all.

    One row an image, in their order: its name in the column `images.id_column`, then a column for
    each class of the first checkpoint. Says where the file is. Raises UserError where the
    checkpoints have other classes, and where an image cannot be read; see `check_output` too.
    """
    names, shares = class_names(checkpoints), model_shares(weights, len(checkpoints))
    predictions = []
    for number, checkpoint in enumerate(checkpoints, start=1):
        title = f"predicting, model {number}/{len(checkpoints)}"
        predictions.append(predict_images(fabric, checkpoint, images, names, views, loader, title))
    merged = weighted_mean(predictions, shares)
    if fabric.is_global_zero:
        frame = pd.DataFrame(merged, columns=names)
        frame.insert(0, images.id_column, images.ids)
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
    return probabilities[:, [info.class_names.index(name) for name in names]]


def class_names(checkpoints: Sequence[Path]) -> list[str]:
    """The classes of the first checkpoint. Raises UserError where another one has others."""
    first: list[str] = []
    for checkpoint in checkpoints:
        facts = load_facts(checkpoint)
        names = [str(name) for name in facts.get("class_names", [])]
        first = first or names
        if differing := sorted(set(first) ^ set(names)):
            raise UserError(
                f"{checkpoint} and {checkpoints[0]} do not have the same classes: "
                f"{', '.join(differing)} in one of them only"
            )
    return first


def check_output(path: Path, columns: Sequence[str]) -> None:
    """Raise UserError where `path` cannot be written, or holds something else than `columns`."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder, or its folder is not there")
    if not path.exists():
        return
    try:
        there = [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (OSError, ValueError):
        there = []
    if there != list(columns):
        raise UserError(
            f"{path} holds something else than predictions of these labels: name another file, or "
            "move it away"
        )
