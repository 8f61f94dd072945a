"""Bitwise comparison of two result folders."""

import json
from pathlib import Path

import pandas as pd

from core.models.checkpoint import load_tensors


def assert_same(ours: Path, theirs: Path) -> None:
    """Assert that the folders hold the same names and the same bytes; see `differing`."""
    found = differing(ours, theirs)
    assert not found, found


def differing(ours: Path, theirs: Path) -> set[str]:
    """Names of files that are in one folder only or differ in content.

    Both were written under one path. Of timing.csv the folds and epochs are compared, of env.json
    all but the starts, and of checkpoints and states the tensors and facts: their headers list
    these in any order. TensorBoard has one file for each start, none where it could not write.
    """
    names = _names(theirs)
    return (_names(ours) ^ names) | {
        name for name in _names(ours) & names if _content(ours / name) != _content(theirs / name)
    }


def _names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in names if "tensorboard" not in Path(name).parts}


def _content(path: Path) -> object:
    if path.is_dir():
        return None
    if path.suffix == ".safetensors":
        tensors, facts = load_tensors(path)
        return facts, {
            name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
            for name, tensor in tensors.items()
        }
    if path.name == "timing.csv":
        return pd.read_csv(path)[["fold", "epoch"]].to_csv()
    if path.name == "env.json":
        return json.loads(path.read_text()) | {"starts": ""}
    return path.read_bytes()
