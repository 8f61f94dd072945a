"""ensemble.infer on images that its checkpoints were trained on: counted against folds.csv."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from core.data.images.decode import read_image
from core.data.pack.__main__ import main as pack_main
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.models.data_digests import NAME
from ensemble.predict.ensemble_json import write_document
from ensemble.predict.training_overlap import (
    IMAGES,
    PATIENTS,
    Checkpoint,
    Overlap,
    as_document,
    overlap_path,
    read_overlap,
)
from tests.conftest import Call
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import write

TRAINED, VALIDATED = IMAGES
QUICK = ("--no-use_tta", "--overwrite")


@pytest.fixture
def folds(checkpoints: list[Path]) -> pd.DataFrame:
    return pd.read_csv(checkpoints[0].with_name("folds.csv"), dtype=str)


def read(output: Path) -> dict:
    return json.loads(overlap_path(output).read_text())


def rows(document: dict, flag: str) -> set[int]:
    """The numbers of the rows, from 1."""
    found: set[int] = set()
    for text in document["row_numbers"][flag]:
        first, _, last = text.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def test_rows_of_the_training_are_counted_by_fold(
    infer: Call, checkpoints: list[Path], phantom: Path, folds: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    table = pd.read_csv(phantom / "train.csv", dtype=str)
    csv = write(tmp_path / "t.csv", table[["ImageID", "PatientID"]])
    fold = table["ImageID"].map(folds.set_index("ImageID")["fold"])
    validation = {row + 1 for row in np.flatnonzero(fold == "1")}
    training = {row + 1 for row in np.flatnonzero(fold != "1")}
    base = ("--test_csv", csv, "--image_dir", phantom / "images", "--output", out, *QUICK)
    printed = output_of(infer, "--checkpoints", checkpoints[0], *base)
    found = read(out)
    assert rows(found, VALIDATED) == validation == rows(found, PATIENTS[1])
    # what an epoch leaves out was not trained on, but its patient
    drawn = rows(found, TRAINED)
    assert drawn <= training == rows(found, PATIENTS[0])
    assert len(drawn) >= len(training) // 8 * 8
    (one,) = found["checkpoints"]
    counts = [len(drawn), len(validation), len(training), len(validation)]
    assert [one[name] for name in (*IMAGES, *PATIENTS)] == counts
    assert f"Warning: of 60 images, {len(drawn)} trained on by at least one checkpoint" in printed
    # the folds together have trained on nearly all: each on what the other validates on
    printed = output_of(infer, "--checkpoints", *checkpoints, *base)
    both = read(out)
    trained = rows(both, TRAINED)
    assert trained > drawn
    assert trained & validation
    assert f"of 60 images, {len(trained)} trained on by at least one checkpoint" in printed
    assert both["checkpoints"][0]["image_in_training"] == len(drawn)
    # the same bytes again
    before = overlap_path(out).read_bytes()
    output_of(infer, "--checkpoints", *checkpoints, *base)
    assert overlap_path(out).read_bytes() == before
    # other patients
    printed = output_of(
        infer, *("--checkpoints", *checkpoints, "--test_csv", phantom / "test.csv", *base[2:])
    )
    assert "Warning" not in printed
    assert "not known" not in printed
    assert not any(read(out)["row_numbers"].values())


def test_lossless_copies_under_other_names_are_found_without_names_too(
    infer: Call, checkpoints: list[Path], phantom: Path, folds: pd.DataFrame, tmp_path: Path
) -> None:
    names = folds.loc[folds["fold"] == "1", "ImageID"].tolist()[:3]
    (tmp_path / "new").mkdir()
    for number, name in enumerate(names):
        path = tmp_path / "new" / f"{number}.tif"
        cv2.imwrite(str(path), read_image(phantom / "images" / name))
    other = next(iter(sorted((phantom / "images").iterdir(), reverse=True)))
    shutil.copy(other, tmp_path / "new" / "3.png")
    base = ("--checkpoints", checkpoints[0], "--image_dir", tmp_path / "new", *QUICK)
    printed = output_of(infer, *base, "--anonymous", "--output", tmp_path / "p.csv")
    found = read(tmp_path / "p.csv")
    assert rows(found, VALIDATED) == {1, 2, 3}
    assert found["checkpoints"][0]["patient_in_training"] is None
    assert found["checkpoints"][0]["checkpoint"] == checkpoints[0].name
    assert "3 validated on: scores on these are too good." in printed
    assert "Patients are not compared" in printed
    printed = output_of(infer, tmp_path / "new" / "0.tif", "--checkpoints", checkpoints[0])
    assert "of 1 image, 1 validated on: scores" in printed


def test_a_study_is_counted_where_one_of_its_images_is(
    infer: Call, checkpoints: list[Path], phantom: Path, folds: pd.DataFrame, tmp_path: Path
) -> None:
    test = pd.read_csv(phantom / "test.csv", dtype=str)["ImageID"].tolist()
    old = folds.loc[folds["fold"] == "1", "ImageID"].tolist()
    table = pd.DataFrame({"ImageID": [test[0], test[1], old[0]], "StudyID": ["b", "a", "a"]})
    out = tmp_path / "p.csv"
    base = ("--checkpoints", checkpoints[0], "--image_dir", phantom / "images", *QUICK)
    csv = write(tmp_path / "s.csv", table)
    printed = output_of(infer, *base, "--test_csv", csv, "--group_by", "StudyID", "--output", out)
    names = pd.read_csv(out)["StudyID"].tolist()
    assert rows(read(out), VALIDATED) == {names.index("a") + 1}
    assert "of 2 studies, 1 validated on" in printed


def test_what_is_not_known_is_printed(
    infer: Call, call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    del tensors[NAME]
    earlier = tmp_path / "earlier.safetensors"
    save_tensors(earlier, tensors, facts)
    out = tmp_path / "p.csv"
    base = ("--image_dir", phantom / "images", "--output", out, *QUICK)
    printed = output_of(infer, "--checkpoints", earlier, *base)
    assert "Unknown training images: earlier.safetensors." in printed
    assert "Warning: of" not in printed
    assert [one["known"] for one in read(out)["checkpoints"]] == [False]
    # a pack of another size than the training's images
    flags = ("--train_dir", phantom / "images", "--out", tmp_path / "pack", "--size", 36)
    assert call(pack_main, *flags)[0] == 0
    packed = ("--checkpoints", checkpoints[0], "--image_dir", tmp_path / "pack")
    printed = output_of(infer, *packed, *base[2:])
    assert "Unknown for 110 images: a pack of another size" in printed
    assert read(out)["checkpoints"][0]["not_compared"] == 110
    # nothing else of that name is replaced
    overlap_path(out).write_text("{}")
    assert "the list of training images would replace" in refusal(infer, *packed, *base[2:])


def test_any_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(40)]
    flags = {name: random.random(40) < 0.5 for name in (*IMAGES, *PATIENTS)}
    overlap = Overlap([Checkpoint(checkpoint="a", known=True)], flags)
    path = overlap_path(tmp_path / "p.csv")
    write_document(path, "training_overlap", as_document(overlap, names))
    found = read_overlap(tmp_path / "p.csv", names)
    assert found is not None
    assert all(np.array_equal(found.rows[name], flags[name]) for name in flags)
    assert read_overlap(tmp_path / "q.csv", names) is None
    with pytest.raises(UserError, match="has other rows"):
        read_overlap(tmp_path / "p.csv", names[::-1])
    document = json.loads(path.read_text())
    document["row_numbers"][TRAINED] = ["1-x"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="it is invalid"):
        read_overlap(tmp_path / "p.csv", names)
