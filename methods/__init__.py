"""Methods, one folder each. `load_model` turns a checkpoint of any of them back into a model."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says of itself; `facts` holds all of it."""

    method: str
    class_names: tuple[str, ...]
    image_size: int
    facts: dict[str, Any]


def load_model(path: str | Path) -> tuple[nn.Module, ModelInfo]:
    """The model of a checkpoint, on the CPU in eval mode, and what the file says of it.

    The model takes uint8 or float in [0, 1], (B, 1, H, W), and gives logits (B, C) in the order of
    `class_names`. Raises UserError where the file is no whole checkpoint of a method that is here.
    """
    from core.checkpoint import load_into, load_tensors

    path = Path(path)
    tensors, facts = load_tensors(path)
    method = facts.get("method")
    # the name comes from a file: only a folder that is here may be imported
    if not isinstance(method, str) or method not in method_names():
        raise UserError(f'{path} names the method "{method}"; known: {", ".join(method_names())}')
    try:
        info = ModelInfo(method, tuple(facts["class_names"]), int(facts["img_size"]), facts)
        settings = dict(facts["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not say what model it holds ({error})") from error
    model = importlib.import_module(f"methods.{method}.model").restore_model(
        settings, len(info.class_names)
    )
    load_into(model, tensors, path)
    return model.eval(), info


def method_names() -> list[str]:
    """The folders of `methods/` that hold a model."""
    return sorted(folder.parent.name for folder in Path(__file__).parent.glob("*/model.py"))
