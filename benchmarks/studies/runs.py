"""Trainings of the studies: settings, and commands that skip existing files.

pandas is imported late for a fast --help of the studies.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import required_data

OUT = Path("outputs")

# nih1000 is half Pneumonia and half No_Finding, and a grey-level histogram separates the two: so
# classes are scored with and without them. Fibrosis and Hernia are too rare.
TOO_FEW = ("Fibrosis", "Hernia")
BY_CONSTRUCTION = ("Pneumonia", "No_Finding")
EVERY = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "160"),
    *("--warmup_epochs", "0.5", "--batch_size", "16", "--monitor", "mAUROC"),
]
TWO_PHASES = [
    *("--epochs", "7", "--warmup_head_epochs", "1"),
    *("--backbone_lr", "2e-4", "--head_lr", "5e-4"),
    # as in the published tables
    *("--seed", "0"),
]
# heads, losses and samplers of the methods' papers
PUBLISHED = {
    "standard_head": ["--head", "mlp", "--logit_adjust", "1"],
    "csra_db_cas": ["--loss", "distribution_balanced", "--sampler", "class_aware"],
    "label_coupling": ["--refiner"],
}
BUDGET = {
    "standard_head": [*EVERY, *TWO_PHASES, *PUBLISHED["standard_head"]],
    "csra_db_cas": [*EVERY, *TWO_PHASES, *PUBLISHED["csra_db_cas"]],
    "label_coupling": [
        *(*EVERY, "--epochs", "8", "--lr", "2e-4", "--patience", "3"),
        *PUBLISHED["label_coupling"],
    ],
}

PHANTOM_BUDGET = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "96"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "32", "--warmup_epochs", "0.5"),
]
TEST_SEED, TEST_IMAGES = 100, 12_000


def call(*words: object) -> None:
    """Run Python with these arguments; its output is shown."""
    subprocess.run([sys.executable, *map(str, words)], check=True)


def nih1000() -> Path:
    """The image set of 1,000 X-rays. Raises UserError without real data."""
    return required_data() / "nih1000"


def weights() -> Path:
    """ImageNet weights of tf_efficientnet_lite0. Raises UserError without real data."""
    return required_data().parent / "weights" / "tf_efficientnet_lite0_in1k.safetensors"


def draw(seed: int, images: int = 3000) -> Path:
    """Folder of a phantom of 128 pixels, drawn if it is missing."""
    folder = OUT / "phantom" / f"data_{seed}"
    options = ("--images", images, "--size", "128", "--seed", seed)
    call("-m", "core.data.phantom", folder, *options)
    return folder


def train(
    method: str,
    out: Path,
    *flags: object,
    data: Path | None = None,
    csv: Path | None = None,
    prefix: Sequence[object] = (),
) -> Path:
    """Train on `data` (nih1000), or on its images in `csv`, unless done; returns the run folder.

    prefix: arguments between `python` and the method's script.
    """
    data = data or nih1000()
    call(
        *(*prefix, f"methods/{method}/train.py", *flags, "--out_dir", out),
        *("--train_csv", csv or data / "train.csv", "--train_dir", data / "images"),
        *("--weights_file", weights()),
    )
    return out


def train_on_phantom(method: str, seed: int, *flags: str, name: str = "") -> Path:
    """Train on the phantom of `seed`; returns the run folder."""
    out = OUT / "phantom" / f"{name or method}_{seed}"
    return train(method, out, *PHANTOM_BUDGET, *flags, "--seed", seed, data=draw(seed))


def predict(csv: Path, images: Path, output: Path, *flags: object) -> Path:
    """Predict the images in `csv` by `ensemble.infer`, unless done; returns the output."""
    if not output.exists():
        given = ("--test_csv", csv, "--image_dir", images, "--output", output)
        call("-m", "ensemble.infer", *flags, *given)
    return output


def predict_phantom(run: Path) -> Path:
    """Predict the test phantom with a run's checkpoints; returns the output."""
    data = draw(TEST_SEED, TEST_IMAGES)
    members = ("--checkpoints", *checkpoints(run), "--no-use_tta")
    return predict(data / "train.csv", data / "images", run / "test.csv", *members)


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run's folds."""
    return sorted(run.glob("*_fold?.safetensors"))


def out_of_fold(run: Path, leave_out: Sequence[str] = ()) -> Path:
    """Write a run's out-of-fold predictions without these classes; returns the CSV."""
    import pandas as pd

    folds = [pd.read_csv(path, index_col=0) for path in sorted(run.glob("*_val.csv"))]
    predictions = pd.concat(folds).drop(columns=list(leave_out))
    output = run.with_name(f"{run.name}_{len(predictions.columns)}.csv")
    predictions.to_csv(output)
    return output


def score(files: Sequence[Path], labels: Path, output: Path, *flags: object) -> None:
    """Print the leaderboard of prediction files, the first as reference; write `output`.json.

    Images and classes are those that all files have.
    """
    words = ("--predictions", *files, "--labels", labels, "--output", output)
    words += ("--common", "--overwrite")
    call("-m", "ensemble.evaluate", *words, *flags)


def score_out_of_fold(runs: Sequence[Path], leave_out: Sequence[str], output: Path) -> None:
    """Print the leaderboard of runs on nih1000, without these classes."""
    score([out_of_fold(run, leave_out) for run in runs], nih1000() / "train.csv", output)
