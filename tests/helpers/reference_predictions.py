"""What a checkpoint says, without loaders, batches or views of the project."""

from pathlib import Path

import numpy as np
import torch

from core.data.images.decode import load_image
from methods import load_model


def said(checkpoint: Path, paths: list[Path], *, mirror: bool = True) -> np.ndarray:
    """Probabilities (N, C) of a model, one image at a time."""
    model, info = load_model(checkpoint)
    rows = []
    for path in paths:
        image = torch.from_numpy(load_image(path, info.image_size))[None, None]
        views = [image, image.flip(-1)] if mirror else [image]
        with torch.no_grad():
            rows.append(torch.stack([model(view).sigmoid()[0] for view in views]).mean(0).numpy())
    return np.array(rows)
