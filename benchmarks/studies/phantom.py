"""Does csra_db_cas find rare findings better than a plain head?

    python -m benchmarks.studies.phantom

Three procedural datasets of 3,000 images, each with a training seed of its own, and both methods at
an equal budget: tf_efficientnet_lite0, 96 px, 1 + 7 epochs, four fifths of the patients. Scored on
12,000 images of other patients, on which each tail class has 40 positives and more. An hour on one
thread; what is there is not made again.

Expected (two CPU cores): the table in methods/csra_db_cas/README.md.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.runner import imagenet_weights, no_flags
from core.config.command_line import run
from core.errors import UserError
from core.metrics import evaluate, paired_difference

OUT = Path("outputs/phantom")
SEEDS = (1, 2, 3)
TEST_SEED, TEST_IMAGES = 100, 12_000
RECIPES = {
    "standard_head": ["--loss", "bce", "--logit_adjust", "0"],
    "csra_db_cas": [],
}
BUDGET = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "96"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "32", "--warmup_epochs", "0.5"),
]
TWO_PHASES = [
    *("--epochs", "7", "--warmup_head_epochs", "1"),
    *("--backbone_lr", "5e-4", "--head_lr", "1e-3"),
]
FOLD = "tf_efficientnet_lite0_fold1"


def main() -> None:
    """Make what is not there yet, and print one row a seed and the mean over seeds."""
    no_flags(__doc__)
    test = draw(TEST_SEED, TEST_IMAGES)
    rows = []
    for seed in SEEDS:
        plain, other = [
            predict(train(method, seed, *TWO_PHASES, *flags), test)
            for method, flags in RECIPES.items()
        ]
        rows.append(compare(plain, other, test, tail_classes()))
    table = pd.DataFrame(rows, index=pd.Index(SEEDS, name="seed"))
    print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    numbers = table.select_dtypes("number").mean()
    print("mean over seeds: " + ", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    print(f"tail: {', '.join(tail_classes())}")


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


def tail_classes() -> list[str]:
    """Findings of less than 1 % of the training images of all seeds together."""
    tables = [pd.read_csv(draw(seed) / "train.csv", index_col=[0, 1]) for seed in SEEDS]
    prevalence = pd.concat(tables).mean()
    return [str(name) for name in prevalence.index[prevalence < 0.01]]


def compare(plain: Path, other: Path, test: Path, tail: list[str]) -> dict[str, object]:
    """mAP and tail mAP of both files, and the paired difference other - plain as text."""
    labels = pd.read_csv(test / "train.csv", index_col="ImageID")
    patients = labels.pop("PatientID").to_numpy()
    row: dict[str, object] = {}
    every = [str(name) for name in labels]
    for name, classes in (("mAP", every), ("tail mAP", tail)):
        targets = labels[classes].to_numpy(float)
        least = int(labels[tail].sum().min())
        if least < 40:
            raise UserError(f"a class of the test part has {least} positives, fewer than 40")
        both = [
            pd.read_csv(path, index_col=0).loc[labels.index, classes].to_numpy()
            for path in (plain, other)
        ]
        for method, probabilities in zip(RECIPES, both, strict=True):
            summary = evaluate(targets, probabilities, classes, resamples=0).summary
            row[f"{name} {method}"] = summary["mAP"]
        gain = paired_difference(targets, both[1], both[0], classes, patients).summary
        row[f"{name} difference"] = gain["mAP"]
        low, high = gain["intervals"]["mAP"]
        row[f"{name} interval"] = f"[{low:+.3f}, {high:+.3f}]"
    return row


if __name__ == "__main__":
    run(main)
