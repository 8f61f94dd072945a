"""`ensemble.evaluate` on training rows, found by infer's JSON or by --train_csv."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.predict.ensemble_json import write_document
from ensemble.predict.training_overlap import (
    IMAGES,
    PATIENTS,
    Checkpoint,
    Overlap,
    as_document,
    overlap_path,
)
from tests.helpers.calls import Command, output_of
from tests.helpers.synthetic.scores import Files


def beside(predictions: Path, trained: list[str], *, known: bool = True) -> None:
    """Let infer have found these images in the training, and their row's patients."""
    names = pd.read_csv(predictions, dtype=str)["ImageID"].tolist()
    found = np.isin(names, trained)
    none = np.zeros(len(names), dtype=bool)
    rows = dict(zip((*IMAGES, *PATIENTS), (found, none, found, none), strict=True))
    count = int(found.sum())
    one = Checkpoint(checkpoint="a/b.safetensors", known=known, image_in_training=count)
    one.patient_in_training, one.patient_in_validation = count, 0
    content = as_document(Overlap([one], rows), names)
    write_document(overlap_path(predictions), "training_overlap", content)


def scores(files: Files, name: str) -> dict:
    return json.loads((files.folder / f"{name}.json").read_text())["training_overlap"]


def test_scored_rows_that_were_trained_on_are_in_table_json_and_page(
    command: Command, files: Files, blank: None
) -> None:
    path = files.path("best")
    ids = pd.read_csv(path, dtype=str)["ImageID"].tolist()
    beside(path, ids[5:25])
    # fewer and in another order than they were predicted
    labels = pd.read_csv(files.path("labels"), dtype=str, keep_default_na=False)
    part = labels[labels["ImageID"].isin(ids[15:100])][::-1]
    part.to_csv(files.path("part"), index=False)
    words = ["--predictions", path, "--labels", files.path("part"), "--common", "--resamples", 0]
    printed = output_of(command, *words, "--report", "--output", files.folder / "s")
    expected = "of 85 scored rows, 10 trained on by at least one checkpoint: scores on these"
    assert f"Warning: {expected} are too good" in " ".join(printed.split())
    assert expected in " ".join((files.folder / "s.html").read_text().split())
    found = scores(files, "s")
    counts = dict(zip((*IMAGES, *PATIENTS), (10, 0, 10, 0), strict=True))
    assert found["files"] == [{"predictions": str(path), "known": True, **counts}]
    assert (found["rows"], found["train_csv"]) == (85, None)
    # changed rows are no longer those
    pd.read_csv(path, dtype=str)[::-1].to_csv(path, index=False)
    printed = output_of(command, *words, "--output", files.folder / "t")
    assert "training_overlap.json of best.csv is damaged, or of other rows" in printed
    (one,) = scores(files, "t")["files"]
    assert (one["known"], one["image_in_training"]) == (False, None)


def test_a_leaderboard_names_the_file(command: Command, files: Files) -> None:
    paths = [files.path(name) for name in ("best", "poor")]
    beside(paths[0], [])
    beside(paths[1], [], known=False)
    words = ["--predictions", *paths, "--labels", files.path("labels"), "--resamples", 0]
    printed = " ".join(output_of(command, *words, "--output", files.folder / "s").split())
    assert "poor.csv: Unknown training images: b.safetensors." in printed
    assert "best.csv: b" not in printed
    overlap_path(paths[1]).unlink()
    printed = output_of(command, *words, "--output", files.folder / "s")
    assert "in a training" not in printed


@pytest.mark.parametrize("kind", ["named", "related", "out of fold", "other"])
def test_rows_of_the_training_table(command: Command, files: Files, kind: str) -> None:
    labels = pd.read_csv(files.path("labels"), dtype=str, keep_default_na=False)
    image, patient = "ImageID", "PatientID"
    table = labels[:30].copy()
    if kind != "named" and kind != "out of fold":
        table[image] = [f"x{row}.png" for row in range(30)]
    if kind == "other":
        table[patient] = "somebody"
    if kind == "named":
        # whatever their ending
        table[image] = table[image].str.replace(".png", "", regex=False) + ".dcm"
    table.to_csv(files.path("training"), index=False)
    path = files.path("best")
    if kind == "out of fold":
        path = path.rename(path.with_name("best_oof.csv"))
        # as ensemble.choose leaves them
        labels.to_csv(path.with_name("best_labels.csv"), index=False)
    words = ["--predictions", path, "--labels", files.path("labels"), "--resamples", 0]
    words += ["--train_csv", files.path("training"), "--output", files.folder / "s"]
    printed = " ".join(output_of(command, *words).split())
    people = int(labels[patient].isin(table[patient]).sum())
    images = 30 if kind in ("named", "out of fold") else 0
    assert scores(files, "s")["train_csv"] == {"images": images, "patients": people}
    expected = f"--train_csv has {images}, {people} are of a patient there: unless these are"
    assert (expected in printed) == (kind in ("named", "related"))
