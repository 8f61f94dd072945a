"""Small well-formed text files of each kind, as input of the fuzzer."""

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tests.helpers.synthetic.runs import make_run
from tests.helpers.training.small_run import ROOT, settings

SOURCES = ROOT / "tests/core/data/sources"
CLASSES = ["Effusion", "Mass", "No_Finding"]
NAMES = [f"{number:05}.png" for number in range(24)]
# each of these tables, and the files beside it that are read with it
TABLES = {
    "nih": ("Data_Entry_2017_v2020.csv", ("test_list.txt", "train_val_list.txt")),
    "chexpert": ("train.csv", ()),
    "mimic": (
        "mimic-cxr-2.0.0-chexpert.csv",
        ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv"),
    ),
    "cxr_lt": ("labels.csv", ()),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", ()),
    "vindr": ("image_labels_train.csv", ()),
}


def make_good(folder: Path) -> Path:
    """One folder for each use of the files: `folder`/nih, .../training, .../run and so on."""
    for name in TABLES:
        shutil.copytree(SOURCES / name, folder / name)
    _training(folder / "training")
    _scored(folder / "scored")
    _run(folder / "run")
    (folder / "json").mkdir()
    for name, document in documents().items():
        (folder / "json" / name).write_text(json.dumps(document))
    return folder


def write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """A CSV as Python writes it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def labels(names: Sequence[str], seed: int = 0) -> list[list[object]]:
    """A table of labels, two images a patient, of both sexes and some ages."""
    chance = random.Random(seed)
    rows: list[list[object]] = [
        ["ImageID", "PatientID", "StudyID", "ViewPosition", "PatientSex", "PatientAge", *CLASSES]
    ]
    for row, name in enumerate(names):
        facts = [name, f"p{seed}-{row // 2}", f"s{row // 2}", "PA" if row % 2 else "LATERAL"]
        facts += ["M" if row % 3 else "F", f"{20 + row:03}Y"]
        rows.append([*facts, *(int(chance.random() < share) for share in (0.4, 0.3, 0.5))])
    return rows


def predictions(names: Sequence[str], seed: int = 0) -> list[list[object]]:
    """Probabilities of the classes."""
    chance = random.Random(seed)
    rows: list[list[object]] = [["ImageID", *CLASSES]]
    return rows + [[name, *(round(chance.random(), 6) for _ in CLASSES)] for name in names]


def _training(folder: Path) -> None:
    (folder / "images" / "below").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / "images" / ("below" if number % 5 == 0 else "") / name).touch()
    write(folder / "train.csv", labels(NAMES[:16]))
    write(folder / "val.csv", labels(NAMES[16:], seed=1))
    write(
        folder / "map.csv", [["label", "means"], ["effusion", "Pleural Effusion"], ["Mass", "Mass"]]
    )
    write(folder / "test.csv", [row[:4] for row in labels(NAMES)])
    write(folder / "sample.csv", predictions(NAMES))


def _scored(folder: Path) -> None:
    folder.mkdir()
    write(folder / "predictions.csv", predictions(NAMES))
    write(folder / "labels.csv", labels(NAMES))
    write(folder / "train.csv", labels([f"other{name}" for name in NAMES], seed=2))
    write(folder / "map.csv", [["label", "means"], ["Hydrothorax", "Effusion"]])
    write(
        folder / "meta.csv", [["ImageID", "site"], *([name, "AB"[len(name) % 2]] for name in NAMES)]
    )
    (folder / "calibration.json").write_text(json.dumps(documents()["calibration.json"]))


def _run(folder: Path) -> None:
    """A finished run of two folds without its weights."""
    folder.mkdir()
    write(folder / "labels.csv", labels(NAMES))
    (_, *header), *rows = predictions(NAMES)
    frame = pd.DataFrame([row[1:] for row in rows], [row[0] for row in rows], header)
    # where the child copies this folder to
    csv = folder.parents[1] / "out" / "here" / "labels.csv"
    config = {"model": "toy", "folds": 2, "train_csv": [str(csv)], "out_dir": "one"}
    run = folder / "one"
    make_run(run, csv, frame, 2, 0)
    (run / "config.json").write_text(json.dumps(all_settings() | config | {"classes": CLASSES}))
    start = {"files": "digest", "python": "3.11.7", "commit": "abc", "versions": {"torch": "2.0"}}
    environment = {"data": "fingerprint", "parts": {"images": "digest"}, "starts": [start, start]}
    (run / "env.json").write_text(json.dumps(environment))
    folds = [[name, 1 + number % 2] for number, name in enumerate(NAMES)]
    write(run / "folds.csv", [["ImageID", "fold"], *folds])
    header = ["fold", "epoch", "phase", "train_loss", "mAP", "mAUROC", "best", "lr_factor"]
    epochs = [[f, e, "full", 1 / e, e / 9, 0.5, 1, 1] for f in (1, 2) for e in (1, 2)]
    write(run / "metrics.csv", [header, *epochs])


def all_settings() -> dict[str, Any]:
    """The settings of standard_head by flag name, as config.json and --config have them."""
    found = json.loads(json.dumps(settings(), default=str))
    return {name: value for name, value in found.items() if name not in ("config", "overwrite")}


def documents() -> dict[str, dict[str, Any]]:
    """Whole JSON documents by the name of their file."""
    maps: dict[str, dict[str, Any]] = {
        "Effusion": {"method": "platt", "slope": 1.5, "offset": -0.5},
        "Mass": {"method": "isotonic", "knots": [0.1, 0.4, 0.9], "values": [0.0, 0.5, 1.0]},
        "No_Finding": {"method": "temperature", "temperature": 2.0},
    }
    thresholds = {"threshold": 0.4, "threshold_gated": None}
    members = [
        {"name": name, "weight": weight, "checkpoints": [f"{name}/a.safetensors", f"../{name}.b"]}
        for name, weight in (("one", 0.75), ("two", 0.25))
    ]
    return {
        "config.json": all_settings(),
        "ensemble.json": {
            "kind": "ensemble",
            "format_version": 1,
            "members": members,
            "classes": CLASSES,
            "made_from": {"runs": {}, "images": 24},
        },
        "calibration.json": {
            "kind": "calibration",
            "format_version": 1,
            "classes": {name: one | thresholds for name, one in maps.items()},
            "normal_class": "No_Finding",
            "normal_alpha": 0.5,
            "made_from": {"images": 24},
        },
    }
