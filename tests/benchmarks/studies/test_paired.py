"""Paired scores of studies, the plain loop, and the record of every epoch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.studies import paired, plain_loop
from core.data.tables import read_table
from core.metrics import paired_difference
from tests.helpers.training.small_run import MODEL, ROOT, flags

NAMES = ("Effusion", "Mass", "Hernia")


@pytest.fixture
def labels() -> paired.Labels:
    random = np.random.default_rng(5)
    targets = (random.random((90, 3)) < (0.5, 0.4, 0.3)).astype(float)
    return paired.Labels(targets, NAMES, np.sort(random.integers(0, 40, 90)).astype(str))


def save(run: Path, fold: int, epochs: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
    path = paired.epochs_file(run, fold)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"epochs": torch.from_numpy(epochs), "rows": torch.from_numpy(rows)}
    save_file(found, path)


def noisy(labels: paired.Labels, seed: int, noise: float = 1.0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    return 1 / (1 + np.exp(-labels.targets - noise * random.normal(size=labels.targets.shape)))


def test_one_seed_is_the_paired_difference(labels: paired.Labels) -> None:
    ours, theirs = noisy(labels, 1), noisy(labels, 2)
    shown = paired.compare(labels, {(0, 1): ours}, {(0, 1): theirs}, ["Hernia"])
    kept = labels.targets[:, :2], ours[:, :2], theirs[:, :2]
    expected = paired_difference(*kept, NAMES[:2], labels.patients, resamples=200).summary
    scores = [f(kept[0], kept[1]) for f in (roc_auc_score, average_precision_score)]
    assert shown[:2] == [f"{score:.3f}" for score in scores]
    for text, name in zip(shown[2:], ("mAUROC", "mAP"), strict=True):
        low, high = expected["intervals"][name]
        assert text == f"{expected[name]:+.3f} [{low:+.3f}, {high:+.3f}]"


def test_folds_are_pooled_and_seeds_averaged(labels: paired.Labels) -> None:
    first, second = noisy(labels, 1), noisy(labels, 2)
    half = np.arange(90) < 45
    cells = {
        (0, 1): np.where(half[:, None], first, np.nan),
        (0, 2): np.where(half[:, None], np.nan, first),
        (1, 1): np.where(half[:, None], second, np.nan),
    }
    auroc = roc_auc_score(labels.targets, first), roc_auc_score(labels.targets[half], second[half])
    shown = paired.compare(labels, cells, None, [])
    assert shown[0] == f"{np.mean(auroc):.3f}"


def test_an_equal_recipe_has_no_difference(labels: paired.Labels) -> None:
    cells = {(0, 1): noisy(labels, 1), (1, 1): noisy(labels, 2)}
    shown = paired.compare(labels, cells, dict(cells), [])
    assert shown[2:] == ["+0.000 [+0.000, +0.000]"] * 2


def test_best_last_and_retrained_epoch(labels: paired.Labels, tmp_path: Path) -> None:
    rows = np.arange(10, 70)
    noise = (3.0, 0.3, 2.0, 0.0)
    epochs = np.stack([noisy(labels, 4, one)[rows] for one in noise])
    save(tmp_path / "run", 1, epochs, rows)
    runs = {(0, 1): tmp_path / "run", (0, 2): tmp_path / "run"}
    best, last, again = paired.choose_epochs(labels, runs, epochs=3)
    assert list(best) == list(last) == list(again) == [(0, 1)]
    for found, place in ((best, 1), (last, 2), (again, 3)):
        np.testing.assert_array_equal(found[0, 1][rows], epochs[place])
        assert np.isnan(np.delete(found[0, 1], rows, axis=0)).all()
    assert paired.choose_epochs(labels, runs, epochs=4)[2] == {}
    assert paired.choose_epochs(labels, runs, epochs=5)[0] == {}


def test_missing_rows_are_shown(
    labels: paired.Labels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.arange(90)
    for seed, name in enumerate(("plain", "ours")):
        save(tmp_path / name, 1, noisy(labels, seed)[None], rows)
    runs = {name: {(0, 1): tmp_path / name} for name in ("plain", "ours", "later")}
    paired.print_table(labels, runs, ["plain", "ours"], [], epochs=1)
    lines = capsys.readouterr().out.splitlines()
    merged = {(0, 1): (noisy(labels, 0) + noisy(labels, 1)) / 2}
    reference = {(0, 1): noisy(labels, 0)}
    assert lines[4].startswith("| later | 0 of 1 | missing |")
    expected = paired.compare(labels, merged, reference, [])
    assert lines[5].startswith(f"| mean of the 2 | 1 of 1 | {' | '.join(expected)} |")


def test_plain_loop_has_the_folds_of_the_methods_and_learns(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_loop, "SIZE", 32)
    monkeypatch.setattr(plain_loop, "EPOCHS", 2)
    weights = tmp_path / "weights.safetensors"
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    save_file(network.state_dict(), weights)
    table = read_table(phantom / "train.csv", phantom / "images")
    folds = plain_loop.assign(table, seed=3)
    epochs = plain_loop.train(table, folds, 2, weights, seed=3)
    assert epochs.shape == (2, int((folds == 2).sum()), len(table.class_names))
    assert not torch.equal(epochs[0], epochs[1])

    command = [sys.executable, "-m", "benchmarks.keep_epochs", "methods/standard_head/train.py"]
    words = flags(phantom, tmp_path / "run", "--folds", 3, "--seed", 3, "--run_folds", 2)
    subprocess.run([*command, *words], cwd=ROOT, check=True, capture_output=True)
    kept = load_file(paired.epochs_file(tmp_path / "run", 2))
    np.testing.assert_array_equal(kept["rows"].numpy(), np.flatnonzero(folds == 2))
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(kept["epochs"]) == len(metrics)
    saved = pd.read_csv(tmp_path / "run" / f"{MODEL}_fold2_val.csv", index_col=0)
    best = int(metrics["epoch"][metrics["best"] == 1].max()) - 1
    np.testing.assert_allclose(kept["epochs"][best].numpy(), saved.to_numpy(), atol=1e-6)
