"""Shuffled prediction files and labels for tests of `ensemble.evaluate`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.images.collection import Images
from core.data.sources.source_table import SourceTable
from core.data.tables.label_table import LabelTable
from ensemble.scoring.score import Scored

ONE = Path("one.csv")
Command = Callable[..., tuple[int, str, str]]
NAMES = ["Effusion", "Nodule", "Mass", "Hernia"]
RARE = "Fracture"  # one positive: scored, but without an interval
NEVER = "Fibrosis"  # no positive
CLASSES = [*NAMES, RARE, NEVER]
RESAMPLES = ["--resamples", 20]


@dataclass
class Files:
    """Prediction files with shuffled rows and columns, and their values in one order."""

    folder: Path
    targets: np.ndarray
    patients: np.ndarray
    probabilities: dict[str, np.ndarray]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    @property
    def flags(self) -> list[object]:
        return ["--labels", self.path("labels"), *RESAMPLES]


def make_files(folder: Path) -> Files:
    random = np.random.default_rng(11)
    images = 150
    targets = (random.random((images, 6)) < (0.4, 0.3, 0.25, 0.25, 0, 0)).astype(float)
    targets[7, 4] = 1
    targets[random.random(targets.shape) < 0.05] = np.nan
    targets[7, 4] = 1
    patients = random.integers(0, 60, size=images)
    ids = [f"{number:03d}.png" for number in range(images)]
    columns = {name: targets[:, place] for place, name in enumerate(CLASSES)}
    labels = pd.DataFrame(columns).assign(ImageID=ids, PatientID=patients)
    labels["Age"] = [f"{age:03d}Y" for age in random.integers(1, 95, size=images)]
    labels.to_csv(folder / "labels.csv", index=False)
    sexes = pd.DataFrame({"ImageID": ids, "Sex": random.choice(["F", "M"], size=images)})
    sexes[::-1].to_csv(folder / "meta.csv", index=False)
    shares = np.array([0.3, 0.2, 0.05, 0.009, 0.002, 0.0])
    train = (np.arange(1000)[:, None] < shares * 1000).astype(int)
    pd.DataFrame(train, columns=CLASSES).assign(
        ImageID=[f"t{row}.png" for row in range(1000)]
    ).to_csv(folder / "train.csv", index=False)
    probabilities = {}
    for name, signal in (("poor", 0.3), ("best", 2.5), ("middling", 1.0)):
        logits = random.normal(size=targets.shape) + signal * np.nan_to_num(targets) - 1
        p = np.round(1 / (1 + np.exp(-logits)), 2)
        probabilities[name] = p
        order = random.permutation(6)
        frame = pd.DataFrame(p[:, order], columns=[CLASSES[place] for place in order])
        frame.insert(int(random.integers(3)), "ImageID", ids)
        frame.sample(frac=1, random_state=1).to_csv(folder / f"{name}.csv", index=False)
    return Files(folder, targets, patients, probabilities)


def scored_of(
    targets: np.ndarray,
    probabilities: np.ndarray,
    names: list[str],
    prevalence: Any,
    patients: np.ndarray | None = None,
    resamples: int = 20,
    seed: int = 0,
) -> Scored:
    """One file, `ONE`, of probabilities (N, C), with its labels."""
    table = LabelTable(
        ids=[str(row) for row in range(len(targets))],
        images=Images.of_files([]),
        patients=patients,
        targets=targets,
        class_names=tuple(names),
    )
    files, sheet = {ONE: probabilities}, SourceTable(path=ONE, columns={})
    return Scored(table, files, np.asarray(prevalence), [], resamples, seed, sheet)


def read_json(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
