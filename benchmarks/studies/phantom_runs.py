"""Procedural datasets, and runs on them: drawn, trained and predicted unless that is done."""

import subprocess
import sys
from pathlib import Path

from benchmarks.runner import imagenet_weights

OUT = Path("outputs/phantom")
TEST_SEED, TEST_IMAGES = 100, 12_000
BUDGET = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "96"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "32", "--warmup_epochs", "0.5"),
]
FOLD = "tf_efficientnet_lite0_fold1"


def draw(seed: int, images: int = 3000) -> Path:
    """The folder of a phantom of 128 pixels, drawn if it is not there."""
    folder = OUT / f"data_{seed}"
    options = ["--images", str(images), "--size", "128", "--seed", str(seed)]
    command = [sys.executable, "-m", "core.data.phantom", str(folder), *options]
    subprocess.run(command, check=True)
    return folder


def train(method: str, seed: int, *flags: str, name: str = "") -> Path:
    """The checkpoint of a run on the phantom of `seed`, trained if it is not there."""
    data, out = draw(seed), OUT / f"{name or method}_{seed}"
    command = [
        *(sys.executable, f"methods/{method}/train.py", *BUDGET, *flags, "--seed", str(seed)),
        *("--train_csv", str(data / "train.csv"), "--train_dir", str(data / "images")),
        *("--weights_file", str(imagenet_weights()), "--out_dir", str(out)),
    ]
    subprocess.run(command, check=True)
    return out / f"{FOLD}.safetensors"


def predict(checkpoint: Path, data: Path) -> Path:
    """A checkpoint's predictions for the images of `data`'s train.csv, made if not there."""
    output = checkpoint.with_name("test.csv")
    if not output.exists():
        command = [
            *(sys.executable, "-m", "ensemble.infer", "--checkpoints", str(checkpoint)),
            *("--test_csv", str(data / "train.csv"), "--image_dir", str(data / "images")),
            *("--no-use_tta", "--output", str(output)),
        ]
        subprocess.run(command, check=True)
    return output
