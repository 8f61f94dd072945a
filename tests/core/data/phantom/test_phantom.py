"""Phantom dataset: files, signal for a model, and protection of other files."""

import json
import shutil
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import NearestNeighbors

from core.data.images.decode import read_image
from core.data.phantom.__main__ import main
from core.data.phantom.anatomy import draw_patient
from core.data.phantom.dataset import COUPLINGS, draw_labels, make_phantom
from core.data.phantom.lesions import FINDINGS, PREVALENCE, draw_radiograph
from core.errors import UserError

CLASSES = [*FINDINGS, "Normal"]
SETTINGS = {"images": 60, "size": 48, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    make_phantom(folder, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return draw_labels(20_000, seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_files_and_columns(folder: Path) -> None:
    train = pd.read_csv(folder / "train.csv")
    test = pd.read_csv(folder / "test.csv")
    truth = pd.read_csv(folder / "test_labels.csv")
    assert list(train.columns) == list(truth.columns) == ["ImageID", "PatientID", *CLASSES]
    assert list(test.columns) == ["ImageID", "PatientID"]
    assert (len(train), len(test)) == (60, 50)
    pd.testing.assert_frame_equal(test, truth[["ImageID", "PatientID"]])
    named = sorted([*train["ImageID"], *test["ImageID"]])
    assert named == sorted(path.name for path in (folder / "images").iterdir())
    assert {read_image(folder / "images" / name).shape for name in named} == {(48, 48)}
    couplings = pd.read_csv(folder / "couplings.csv")
    assert list(couplings.itertuples(index=False, name=None)) == [*COUPLINGS]
    assert not set(train["PatientID"]) & set(test["PatientID"])
    for table in (train, truth):
        assert ((table[list(FINDINGS)].sum(axis=1) == 0) == (table["Normal"] == 1)).all()


@pytest.mark.parametrize(("images", "patients"), [(20, 2), (51, 2), (1200, 5)])
def test_counts_of_images_and_patients_of_each_class(images: int, patients: int) -> None:
    for seed in range(3):
        table = draw_labels(images, seed)
        assert table["ImageID"].nunique() == images
        assert not table[CLASSES].equals(draw_labels(images, seed + 1)[CLASSES])
        assert table["PatientID"].value_counts().min() >= 2
        for name in CLASSES:
            assert table.loc[table[name] == 1, "PatientID"].nunique() >= patients, name


def test_prevalence_is_that_of_the_table(many: pd.DataFrame) -> None:
    for finding, expected in PREVALENCE.items():
        # films of one patient agree, so the standard error is that of a third as many images
        error = 4 * np.sqrt(3 * expected / len(many))
        assert many[finding].mean() == pytest.approx(expected, abs=error), finding
    assert 0.25 < many["Normal"].mean() < 0.45


def test_a_longer_tail_keeps_common_findings_and_couplings() -> None:
    table = draw_labels(20_000, seed=1, rare=0.3)
    for finding, default in PREVALENCE.items():
        expected = default if default >= 0.05 else 0.3 * default
        error = 4 * np.sqrt(3 * expected / len(table))
        assert table[finding].mean() == pytest.approx(expected, abs=error), finding
    strength = {source: p for source, _, p in COUPLINGS}["Emphysema"]
    assert table["Fibrosis"][table["Emphysema"] == 1].mean() == pytest.approx(strength, abs=0.2)


def test_couplings_and_nothing_else_correlate(many: pd.DataFrame) -> None:
    for source, target, strength in COUPLINGS:
        present = many[source] == 1
        assert many.loc[present, target].mean() == pytest.approx(strength, abs=0.08)
        assert many.loc[present, target].mean() > 2 * many.loc[~present, target].mean()
    correlation = np.abs(np.corrcoef(many[list(FINDINGS)].to_numpy(float), rowvar=False))
    coupled = {frozenset((source, target)) for source, target, _ in COUPLINGS}
    for i, j in combinations(range(len(FINDINGS)), 2):
        if frozenset((FINDINGS[i], FINDINGS[j])) not in coupled:
            assert correlation[i, j] < 0.06, (FINDINGS[i], FINDINGS[j])


def test_each_positive_has_one_box_inside_its_image(folder: Path) -> None:
    boxes = pd.read_csv(folder / "boxes.csv")
    assert list(boxes.columns) == ["ImageID", "finding", "x0", "y0", "x1", "y1"]
    tables = [pd.read_csv(folder / name) for name in ("train.csv", "test_labels.csv")]
    labels = pd.concat(tables).melt("ImageID", list(FINDINGS), "finding", "present")
    present = labels[labels["present"] == 1]
    positives = list(zip(present["ImageID"], present["finding"], strict=True))
    assert sorted(zip(boxes["ImageID"], boxes["finding"], strict=True)) == sorted(positives)
    assert ((boxes["x0"] >= 0) & (boxes["x0"] < boxes["x1"]) & (boxes["x1"] <= 48)).all()
    assert ((boxes["y0"] >= 0) & (boxes["y0"] < boxes["y1"]) & (boxes["y1"] <= 48)).all()


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_film_inside_its_box(finding: str) -> None:
    inside, outside = [], []
    for number in range(6):
        patient = draw_patient(0, number, 96)
        healthy, none = draw_radiograph(patient, 0, 0, {})
        ill, boxes = draw_radiograph(patient, 0, 0, {finding: 1.0})
        x0, y0, x1, y1 = boxes[finding]
        change = np.abs(ill.astype(float) - healthy)
        inside.append(change[y0:y1, x0:x1].mean())
        change[y0:y1, x0:x1] = np.nan
        outside.append(np.nanmean(change))
        assert not none
    assert np.mean(inside) > 4.0
    assert np.mean(inside) > 3 * np.mean(outside)


def test_a_split_by_image_is_rewarded(tmp_path: Path) -> None:
    make_phantom(tmp_path, images=400, size=40)
    table = pd.read_csv(tmp_path / "train.csv")
    paths = [tmp_path / "images" / name for name in table["ImageID"]]
    films = [cv2.resize(read_image(path), (32, 32)) for path in paths]
    features = np.stack(films).reshape(len(table), -1).astype(np.float32)
    targets = table[CLASSES].to_numpy()

    def macro_auroc(folds: Iterable[tuple[Any, Any]]) -> float:
        scores = np.zeros(targets.shape)
        for fit, held_out in folds:
            neighbours = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(features[fit])
            nearest = fit[neighbours.kneighbors(features[held_out], return_distance=False)]
            scores[held_out] = targets[nearest].mean(axis=1)
        return float(roc_auc_score(targets, scores, average="macro"))

    by_image = macro_auroc(KFold(5, shuffle=True, random_state=0).split(features))
    by_patient = macro_auroc(GroupKFold(5).split(features, groups=table["PatientID"]))
    assert by_image > by_patient + 0.08
    assert by_patient < 0.65


def test_the_same_dataset_is_kept_and_another_refused(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    assert make_phantom(folder, **SETTINGS) is False
    with pytest.raises(UserError, match=r"other settings.*another folder"):
        make_phantom(folder, **{**SETTINGS, "images": 121})
    with pytest.raises(UserError, match=r"other settings"):
        make_phantom(folder, **SETTINGS, rare=0.3)
    assert contents(folder) == before
    # one that lost a file is not taken for complete
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "boxes.csv").unlink()
    with pytest.raises(UserError, match=r"lost its boxes\.csv"):
        make_phantom(tmp_path / "copy", **SETTINGS)


@pytest.mark.parametrize(
    ("mine", "below", "settings", "sentence"),
    [
        ("data", "data", {}, "data is a file"),
        ("data", "data/below", {}, "cannot be written"),
        ("data/train.csv", "data", {}, "train.csv"),
        ("data/images/mine.png", "data", {}, "images"),
        ("mine", "data", {"images": 19}, "--images is 19: give at least 20"),
        ("mine", "data", {"size": 31}, "--size"),
        ("mine", "data", {"seed": -1}, "--seed"),
        ("mine", "data", {"rare": 0.0}, "--rare is 0: give a number above 0 and up to 1"),
        ("mine", "data", {"rare": 1.5}, "--rare is 1.5"),
        ("mine", "data", {"rare": float("nan")}, "--rare is nan"),
    ],
)
def test_foreign_data_is_never_touched_and_wrong_settings_are_refused(
    tmp_path: Path, mine: str, below: str, settings: dict[str, Any], sentence: str
) -> None:
    (tmp_path / mine).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mine).write_text("mine")
    with pytest.raises(UserError, match=sentence):
        make_phantom(tmp_path / below, **SETTINGS | settings)
    assert contents(tmp_path) == {mine: b"mine"}


def test_an_interrupted_phantom_is_made_again_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("core.data.phantom.dataset.draw_images", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_phantom(tmp_path, **SETTINGS)
    assert not (tmp_path / "phantom.json").exists()
    # a larger phantom was under way: none of its images may stay behind
    (tmp_path / "images" / "p09999_00.png").write_bytes(b"")
    assert make_phantom(tmp_path, **SETTINGS) is True
    assert contents(tmp_path) == contents(folder)


def test_the_command_prints_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for begin in ("Drew", "Already there:"):
        main([str(tmp_path), "--images", "20", "--size", "32", "--seed", "5"])
        said = capsys.readouterr().out
        assert said.startswith(f"{begin} 20 + 50 images")
        assert f"--train_csv {tmp_path / 'train.csv'} --train_dir {tmp_path / 'images'}" in said
        assert json.loads((tmp_path / "phantom.json").read_text())["seed"] == 5
