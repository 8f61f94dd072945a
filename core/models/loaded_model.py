"""Loaded model: description, and prediction for image files or arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from core.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help of commands is answered at once
    import pandas as pd
    from torch import nn

    from core.models.data_digests import DataDigests

Image: TypeAlias = str | Path | np.ndarray
_BATCH = 16


@dataclass(frozen=True)
class ModelInfo:
    """Description of a checkpoint; `facts` is its full description after `strict_json`.

    `image_size` is the side of the square input, in pixels.
    """

    method: str
    class_names: tuple[str, ...]
    image_size: int
    facts: dict[str, Any]
    data_digests: DataDigests | None = None
    """Digests of the training and validation images; None if the file has none."""


class LoadedModel(NamedTuple):
    """Module and description of a checkpoint; unpacks as `module, info = load_model(path)`."""

    module: nn.Module
    info: ModelInfo

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of the outputs."""
        return list(self.info.class_names)

    @property
    def image_size(self) -> int:
        """Side of the square input image, in pixels."""
        return self.info.image_size

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.info.method

    @property
    def facts(self) -> dict[str, Any]:
        """Settings, fold, epoch, scores and counts of the training."""
        return self.info.facts

    def predict(self, images: Image | Iterable[Image]) -> pd.DataFrame:
        """Uncalibrated probabilities, float32, with one row an image and one column a class.

        An image is a path or a grey array (H, W) of any size: uint8, or floats in [0, 1], which are
        rounded to 8 bits. It is resized and averaged with its mirror image, as in the validation of
        the run. The index (ImageID) holds the given path, or the array's position from 0. Raises
        UserError (a ValueError) for no image, any other array, an unreadable file, and
        probabilities that are not finite.
        """
        import pandas as pd
        import torch

        from core.data.images.decode import resize
        from core.models.predict import mean_probability, validation_views

        given = _list(images)
        settings = self.facts.get("settings")
        mirrors = not isinstance(settings, dict) or settings.get("tta") is not False
        # the memory layout of the validation: another one rounds differently
        module = self.module.eval().to(memory_format=torch.channels_last)
        views = validation_views(mirrors)
        device = next(module.parameters()).device
        rows = []
        for start in range(0, len(given), _BATCH):
            pixels = [
                resize(_read(image, start + place), self.image_size)
                for place, image in enumerate(given[start : start + _BATCH])
            ]
            batch = torch.from_numpy(np.stack(pixels))[:, None].to(device)
            with torch.no_grad():
                rows.append(mean_probability(module(view(batch)) for view in views).cpu().numpy())
        names = [
            place if isinstance(image, np.ndarray) else str(image)
            for place, image in enumerate(given)
        ]
        index = pd.Index(names, name="ImageID")
        found = pd.DataFrame(np.concatenate(rows), index=index, columns=self.class_names)
        if not np.isfinite(found.to_numpy()).all():
            raise UserError("the probabilities of the model are not finite: train it again")
        return found


def _list(images: Image | Iterable[Image]) -> list[Image]:
    """The images as a list. Raises UserError for an empty or invalid argument."""
    if isinstance(images, (str, os.PathLike, np.ndarray)):
        return [images]
    if not isinstance(images, Iterable) or not (given := list(images)):
        raise UserError(
            f"predict got {'no image' if isinstance(images, Iterable) else _kind(images)}: give a "
            "path, a NumPy array, or a list of these"
        )
    return given


def _read(image: object, place: int) -> np.ndarray:
    """Read a path or array as grey uint8 (H, W). Raises UserError with an array's `place`."""
    from core.data.images.decode import read_image

    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    what = f"image {place} of predict"
    if not isinstance(image, np.ndarray):
        raise UserError(f"{what} is {_kind(image)}: give a path or a NumPy array")
    if image.ndim != 2 or not image.size:
        raise UserError(
            f"{what} has the shape {image.shape}: give one grey image (height, width), or several "
            "as a list"
        )
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise UserError(
            f"{what} has the type {image.dtype}: give uint8 from 0 to 255, or floats from 0 to 1"
        )
    low, high = float(image.min()), float(image.max())
    # written so that NaN fails
    if not (low >= 0 and high <= 1):
        raise UserError(
            f"{what} has floats from {low:g} to {high:g}: give floats from 0 to 1 without NaN (/ "
            "255), or uint8"
        )
    return (image.astype(np.float32) * 255).round().astype(np.uint8)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
