"""The main job on real X-rays, coarse and short: the pipeline, not the score."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

Train = Callable[..., tuple[int, str, str]]


def test_nih64_trains_and_learns(real_data: Path, tmp_path: Path, train: Train) -> None:
    data, out = real_data / "nih64", tmp_path / "out"
    code, printed, error = train(
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--out_dir", out),
        *("--preset", "small", "--model", "test_efficientnet", "--no-pretrained"),
        *("--img_size", 64, "--epochs", 3, "--folds", 3, "--run_folds", 1, "--num_workers", 1),
    )
    assert code == 0, error
    assert "1,000 images, 264 patients" in printed
    rows = pd.read_csv(out / "metrics.csv")
    assert rows["train_loss"].iloc[-1] < rows["train_loss"].iloc[0]
    folds = pd.read_csv(out / "folds.csv")
    assert folds.groupby("PatientID")["fold"].nunique().max() == 1
    predicted = pd.read_csv(out / "test_efficientnet_fold1_val.csv")
    assert set(predicted["ImageID"]) == set(folds.loc[folds["fold"] == 1, "ImageID"])
    assert list(predicted.columns[1:]) == list(pd.read_csv(data / "train.csv").columns[2:])
