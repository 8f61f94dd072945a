"""What the doctor needs of the rooms above `core`.

`core` knows no method, and its other parts import none of this. The doctor is a program at the top
of the project, which has its name and its place from `python -m core.doctor`: what it needs of
methods and ensemble is imported here alone, by name, when a check asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError, nearest


def method_names() -> list[str]:
    """As `methods.method_names`."""
    names: list[str] = importlib.import_module("methods").method_names()
    return names


def presets_of(method: str) -> Mapping[str, Callable[[], Any]]:
    """The presets of a method by name. Raises UserError where there is no such method."""
    names = method_names()
    # only a folder that is here is imported
    if method not in names:
        raise UserError(f"there is no --method '{method}'{nearest(method, names)}")
    presets: Mapping[str, Callable[[], Any]] = importlib.import_module(
        f"methods.{method}.config"
    ).PRESETS
    return presets


def build_model(method: str, settings: Any, classes: int) -> Any:
    """The method's untrained model for the group `settings.model` of its Config."""
    return importlib.import_module(f"methods.{method}.model").build_model(settings.model, classes)


def load_model(path: Path) -> tuple[Any, Any]:
    """As `methods.load_model`."""
    model, info = importlib.import_module("methods").load_model(path)
    return model, info


def find_images(folder: Path, csv: Path | None, column: str) -> Any:
    """As `core.data.tables.images_to_predict.find_images`: the table of images without labels."""
    found = importlib.import_module("core.data.tables.images_to_predict").find_images
    return found(folder, csv, image_column=column)


def read_predictions(path: Path) -> Any:
    """As `core.runs.prediction_files.read_predictions`."""
    return importlib.import_module("core.runs.prediction_files").read_predictions(path)
