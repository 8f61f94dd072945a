"""Run folders without training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from core.models.checkpoint import save_tensors
from core.runs.folder import RunFolder

Command = Callable[..., tuple[int, str, str]]
Runs = tuple[list[Path], Path, list[pd.DataFrame]]
NAMES = ["Effusion", "Mass", "No_Finding"]
IMAGES = 90
MODEL = "toy"


def labels_of(seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    targets = (random.random((IMAGES, 3)) < (0.3, 0.2, 0.5)).astype(int)
    frame = pd.DataFrame(targets, columns=NAMES)
    frame.insert(0, "ImageID", [f"{number:03}.png" for number in range(IMAGES)])
    frame.insert(1, "PatientID", [f"p{number // 2}" for number in range(IMAGES)])
    return frame


def make_run(
    path: Path, labels: Path, frame: pd.DataFrame, count: int, seed: int, **settings: Any
) -> pd.DataFrame:
    """Write a run of `count` finished folds with out-of-fold probabilities `frame`, shuffled."""
    random = np.random.default_rng(seed)
    path.mkdir()
    config = {"model": MODEL, "folds": count, "train_csv": str(labels), "val_csv": None}
    config |= {"image_column": "", "patient_column": "", "uncertain": "ignore", "blank": None}
    (path / "config.json").write_text(json.dumps(config | settings))
    rows = random.permutation(len(frame))
    for fold, part in enumerate(np.array_split(rows, count), start=1):
        files = RunFolder(path, MODEL).files(fold)
        columns = random.permutation(frame.columns)
        frame.iloc[part][columns].to_csv(files.predictions, index_label="ImageID")
        files.weights.write_bytes(b"not read")
        save_tensors(files.state, {}, {"progress": {"finished": True}})
    return frame


def guesses(labels: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    seen = 2 * labels[NAMES].to_numpy() - 1.5 + noise * random.normal(size=(IMAGES, 3))
    return pd.DataFrame(expit(seen).round(6), columns=NAMES, index=labels["ImageID"].to_numpy())


def two_runs(folder: Path) -> Runs:
    """Two runs, the CSV of their labels, and their predictions."""
    labels, frame = folder / "labels.csv", labels_of()
    frame.sample(frac=1, random_state=0).to_csv(labels, index=False)
    paths = [folder / "one", folder / "two"]
    tables = [
        make_run(path, labels, guesses(frame, noise, seed), folds, seed)
        for path, noise, folds, seed in zip(paths, (2, 2.2), (2, 3), (1, 2), strict=True)
    ]
    return paths, labels, tables
