"""Training on pseudo-labels of every method: predict, train again, resume, score, and leaks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.models.checkpoint import load_facts
from ensemble.choose import main as choose
from tests.conftest import Call, Train
from tests.helpers.training.small_run import METHODS, MODEL, flags

UNLABELLED = 15


@pytest.fixture
def pseudo(infer: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path) -> Path:
    """Predictions of the checkpoint of fold 1 for test images, with their patients.

    The first three are given to a patient of fold 1 in train.csv.
    """
    rows = pd.read_csv(phantom / "test.csv", dtype=str)[["ImageID", "PatientID"]][:UNLABELLED]
    folds = pd.read_csv(checkpoints[0].with_name("folds.csv"), dtype=str)
    rows.loc[:2, "PatientID"] = folds.loc[folds["fold"] == "1", "PatientID"].iloc[0]
    rows.to_csv(tmp_path / "unlabelled.csv", index=False)
    out = tmp_path / "pseudo.csv"
    code, _, error = infer(
        *("--checkpoints", checkpoints[0], "--image_dir", phantom / "images"),
        *("--test_csv", tmp_path / "unlabelled.csv", "--output", out),
    )
    assert code == 0, error
    pd.read_csv(out, dtype=str).merge(rows).to_csv(out, index=False)
    return out


def command(phantom: Path, out: Path, pseudo: Path, *more: object) -> list[str]:
    """Flags of a run of both CSVs, in folders of their own."""
    images = out.parent / "unlabelled"
    images.mkdir(exist_ok=True)
    for name in pd.read_csv(pseudo)["ImageID"]:
        (images / name).write_bytes((phantom / "images" / name).read_bytes())
    usual = flags(phantom, out, "--soft_labels", "--epochs", 1, *more)
    for flag, value in (("--train_csv", pseudo), ("--train_dir", images)):
        usual.insert(usual.index(flag) + 2, str(value))
    return usual


@pytest.mark.parametrize("method", METHODS)
def test_a_run_on_pseudo_labels(
    method: str,
    train_method: Callable[[str], Train],
    phantom: Path,
    pseudo: Path,
    checkpoints: list[Path],
    call: Call,
    tmp_path: Path,
) -> None:
    train, out = train_method(method), tmp_path / "out"
    given = command(phantom, out, pseudo, "--sampler", "class_aware")
    code, printed, error = train(*given, "--run_folds", 1)
    assert code == 0, error
    assert f"Soft labels of {UNLABELLED} of " in printed
    # the checkpoint of fold 1 saw no patient that fold 1 validates
    assert "inflates its scores" not in printed

    before = pd.read_csv(checkpoints[0].with_name("folds.csv"), dtype=str).set_index("ImageID")
    folds = pd.read_csv(out / "folds.csv", dtype=str).set_index("ImageID")["fold"]
    assert folds[[f"train/{name}" for name in before.index]].tolist() == before["fold"].tolist()
    others = folds[[f"pseudo/{name}" for name in pd.read_csv(pseudo)["ImageID"]]]
    assert others.tolist() == ["-1"] * 3 + ["0"] * (UNLABELLED - 3)

    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv")["ImageID"]
    assert set(predicted) == set(folds.index[folds == "1"])
    labels = pd.read_csv(out / "labels.csv", dtype=str)
    assert labels["ImageID"].tolist() == folds.index[folds.astype(int) > 0].tolist()
    # sums over the training images, rounded
    facts = load_facts(out / f"{MODEL}_fold1.safetensors")
    hard = pd.read_csv(phantom / "train.csv")[(before["fold"] != "1").to_numpy()]
    for name in ("Effusion", "Nodule"):
        total = hard[name].sum() + pd.read_csv(pseudo)[name][3:].sum()
        name = {"Effusion": "Pleural Effusion"}.get(name, name)
        assert abs(facts["training_positives"][name] - total) <= 0.501
        assert facts["training_known"][name] == len(hard) + UNLABELLED - 3

    # the second fold resumes the run; its validation patients trained the checkpoint
    code, printed, error = train(*given)
    assert code == 0, error
    assert "Resuming the run" in printed
    patients = before["PatientID"][before["fold"] == "2"].nunique()
    assert f"was trained on {patients} of the {patients} patients that fold 2" in printed
    assert "Predict with the checkpoint of fold 2, and train with --run_folds 2" in printed
    code, printed, error = call(choose, "--runs", out, "--output", tmp_path / "ensemble.json")
    assert code == 0, error
    assert len(pd.read_csv(tmp_path / "ensemble_oof.csv")) == len(before)


def test_soft_labels_count_only_in_the_training(
    train: Train, phantom: Path, pseudo: Path, tmp_path: Path
) -> None:
    """Other soft labels change the weights, and not the labels that scores are from."""
    found = []
    for place, shift in enumerate((0.0, 0.3)):
        frame = pd.read_csv(pseudo)
        classes = frame.columns.difference(["ImageID", "PatientID"])
        frame[classes] = frame[classes].mul(0.6).add(0.05 + shift)
        frame.to_csv(pseudo, index=False)
        out = tmp_path / f"out{place}"
        code, _, error = train(*command(phantom, out, pseudo, "--run_folds", 1))
        assert code == 0, error
        found.append(
            (
                (out / "labels.csv").read_bytes(),
                (out / f"{MODEL}_fold1_val.csv").read_bytes(),
            )
        )
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_dry_run(train: Train, phantom: Path, pseudo: Path, tmp_path: Path) -> None:
    given = command(phantom, tmp_path / "out", pseudo, "--batch_size", 4, "--dry_run")
    code, printed, error = train(*given)
    assert code == 0, error
    assert "everything works" in printed
    assert np.isin([1, 0, -1], pd.read_csv(tmp_path / "out_dry_run" / "folds.csv")["fold"]).any()


def test_what_cannot_be_checked_is_reported(
    train: Train, phantom: Path, pseudo: Path, tmp_path: Path
) -> None:
    record = pseudo.with_name("pseudo_training_overlap.json")
    text = record.read_text()
    reasons = {
        "ensemble.infer left no pseudo_training_overlap.json": None,
        "names no checkpoints": "{}",
        "is not there": text.replace(f"{MODEL}_fold1", "gone"),
    }
    for reason, content in reasons.items():
        record.unlink() if content is None else record.write_text(content)
        given = command(phantom, tmp_path / "out", pseudo, "--dry_run", "--batch_size", 4)
        code, printed, error = train(*given)
        assert code == 0, error
        line = next(one for one in printed.splitlines() if "leaks into the validation" in one)
        assert reason in line


@pytest.mark.parametrize("flag", ["--no-soft_labels", "--val_csv"])
def test_refused(flag: str, train: Train, phantom: Path, pseudo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = command(phantom, out, pseudo)
    given += [flag] if flag == "--no-soft_labels" else [flag, str(pseudo), str(pseudo)]
    code, printed, error = train(*given)
    assert code == 2
    assert "--soft_labels" in error
    assert "Traceback" not in printed + error
    assert not out.exists()
