"""Files, checkpoints and reference predictions for tests of `ensemble.infer`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.images.decode import load_image
from core.models.checkpoint import load_tensors, save_tensors
from methods import load_model

Infer = Callable[..., tuple[int, str, str]]
HEAD = ("head.6.weight", "head.6.bias")


def write(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


def predict_to_frame(infer: Infer, *arguments: object, output: Path) -> pd.DataFrame:
    code, _, error = infer(*arguments, "--output", output, "--overwrite")
    assert code == 0, error
    return pd.read_csv(output, index_col=0)


def copy_images(images: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    return folder


def select_classes(checkpoint: Path, path: Path, keep: list[str]) -> Path:
    """A checkpoint that knows some of the classes only, in the order of `keep`."""
    tensors, facts = load_tensors(checkpoint)
    places = [facts["class_names"].index(name) for name in keep]
    tensors |= {name: tensors[name][places] for name in HEAD}
    save_tensors(path, tensors, facts | {"class_names": keep})
    return path


def reference_probabilities(
    checkpoint: Path, paths: list[Path], *, mirror: bool = True
) -> np.ndarray:
    """Reference probabilities (N, C) of a model, image by image, without loader or batches."""
    model, info = load_model(checkpoint)
    rows = []
    for path in paths:
        image = torch.from_numpy(load_image(path, info.image_size))[None, None]
        views = [image, image.flip(-1)] if mirror else [image]
        with torch.no_grad():
            rows.append(torch.stack([model(view).sigmoid()[0] for view in views]).mean(0).numpy())
    return np.array(rows)
