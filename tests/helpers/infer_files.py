"""What tests of `ensemble.infer` on six images share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from core.models.checkpoint import load_tensors, save_tensors

Infer = Callable[..., tuple[int, str, str]]
HEAD = ("head.6.weight", "head.6.bias")


def write(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


def predicted(infer: Infer, *arguments: object, output: Path) -> pd.DataFrame:
    code, _, error = infer(*arguments, "--output", output, "--overwrite")
    assert code == 0, error
    return pd.read_csv(output, index_col=0)


def copied(images: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    return folder


def part(checkpoint: Path, path: Path, keep: list[str]) -> Path:
    """A checkpoint that knows some of the classes only, in the order of `keep`."""
    tensors, facts = load_tensors(checkpoint)
    places = [facts["class_names"].index(name) for name in keep]
    tensors |= {name: tensors[name][places] for name in HEAD}
    save_tensors(path, tensors, facts | {"class_names": keep})
    return path
