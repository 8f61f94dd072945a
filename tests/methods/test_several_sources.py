"""Run on two sources with different labels: training data, files and resume."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.phantom.dataset import make_phantom
from ensemble.choose import main as choose
from methods import load_model
from tests.conftest import Call
from tests.helpers.training.small_run import MODEL, flags


@pytest.fixture
def sources(phantom: Path, tmp_path: Path) -> list[str]:
    """Flags of two phantoms: one knows no Mass, the other no Nodule and other names for two."""
    folder = tmp_path / "sources"
    make_phantom(folder / "other", images=40, size=40, seed=4)
    first = pd.read_csv(phantom / "train.csv").drop(columns="Mass")
    second = pd.read_csv(folder / "other" / "train.csv").drop(columns="Nodule")
    names = {"Effusion": "Pleural Effusion", "Normal": "No Finding"}
    first.to_csv(folder / "first.csv", index=False)
    second.rename(columns=names).to_csv(folder / "second.csv", index=False)
    return [
        *("--train_csv", str(folder / "first.csv"), str(folder / "second.csv")),
        *("--train_dir", str(phantom / "images"), str(folder / "other" / "images")),
        *("--source_weights", "1", "0.5", "--labels", "Pleural Effusion,Mass,Nodule,Normal"),
    ]


def command(out: Path, sources: list[str], *more: object) -> list[str]:
    # flags of lists are given once: the usual ones make room
    usual = flags(Path(), out)
    for name in ("--train_csv", "--train_dir"):
        place = usual.index(name)
        del usual[place : place + 2]
    return [*usual, *sources, *map(str, more)]


def test_a_run_of_two_sources_and_what_it_leaves(
    sources: list[str],
    train: Call,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_of = tmp_path / "out"
    code, printed, error = train(*command(run_of, sources))
    assert code == 0, error
    rows = [line.split() for line in printed.splitlines()]
    first, second = (pd.read_csv(path) for path in sources[1:3])
    # the labels of each as its CSV has them
    effusions = first["Effusion"].sum(), second["Pleural Effusion"].sum()
    counts = [[str(count), "of", str(all)] for count, all in zip(effusions, (60, 40), strict=True)]
    assert ["Pleural", "Effusion", *counts[0], *counts[1]] in rows
    assert ["Mass", "-", str(second["Mass"].sum()), "of", "40"] in rows
    assert ["Nodule", str(first["Nodule"].sum()), "of", "60", "-"] in rows
    assert "Sampler uniform, fold 1: an epoch makes" in printed
    assert f"{sources[1]}, {sources[2]}: 100 images" in (run_of / "report.html").read_text()
    assert "AUROC and known labels of each class by source" in (run_of / "report.html").read_text()

    folds = pd.read_csv(run_of / "folds.csv", index_col="ImageID")
    names = [f"first/{name}" for name in first["ImageID"]]
    names += [f"second/{name}" for name in second["ImageID"]]
    assert list(folds.index) == names
    assert folds.groupby("PatientID")["fold"].nunique().max() == 1
    assert folds["PatientID"].nunique() == (
        first["PatientID"].nunique() + second["PatientID"].nunique()
    )
    for fold in (1, 2):
        predicted = pd.read_csv(run_of / f"{MODEL}_fold{fold}_val.csv", index_col="ImageID")
        assert set(predicted.index) == set(folds.index[folds["fold"] == fold])

    # a class that one source knows is counted there alone
    _, info = load_model(run_of / f"{MODEL}_fold1.safetensors")
    training = folds.index[folds["fold"] != 1]
    known = second.set_index("second/" + second["ImageID"])["Mass"].reindex(training).dropna()
    assert info.facts["training_positives"]["Mass"] == known.sum()
    assert info.facts["training_known"]["Mass"] == len(known)
    assert info.facts["training_known"]["Normal"] == len(training)
    assert json.loads((run_of / "config.json").read_text())["train_csv"] == sources[1:3]

    # and the ensemble finds the labels of both by the names of the predictions
    monkeypatch.chdir(tmp_path)
    code, printed, error = call(choose, "--runs", run_of, "--folds", 2)
    assert code == 0, error
    assert "labels       outputs/ensemble_labels.csv" in printed
    labels = pd.read_csv("outputs/ensemble_labels.csv", index_col="ImageID")
    assert set(labels.index) == set(names)
    mass = [*[np.nan] * 60, *second["Mass"]]
    np.testing.assert_array_equal(labels.loc[names, "Mass"], mass)
    normal = [*first["Normal"], *second["No Finding"]]
    np.testing.assert_array_equal(labels.loc[names, "Normal"], normal)
    assert labels.loc[names[:1], "PatientID"].item() == f"first/{first['PatientID'][0]}"

    # another share of the draws, or the sources in another order, is another run
    for other, sentence in (
        ([*sources[:6], "--source_weights", "1", "0.6", *sources[9:]], "differs in source_weights"),
        ([sources[0], *sources[2:0:-1], sources[3], *sources[5:3:-1], *sources[6:]], "train_csv"),
    ):
        code, _, error = train(*command(run_of, other))
        assert code == 2
        assert sentence in error
