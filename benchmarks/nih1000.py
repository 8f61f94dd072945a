"""What does standard_head reach on real X-rays? `python -m benchmarks.nih1000` (half an hour).

Three patient-disjoint folds of the 1,000 images of NIH ChestX-ray14 in `nih1000`, 160 px, ImageNet
weights of tf_efficientnet_lite0, eight epochs. Run folders that are there are not trained again.

Expected (two CPU cores, see the README): the table in README.md.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.runner import real_data
from core.cli import run
from core.errors import UserError
from core.metrics import evaluate

# The set was built half of Pneumonia and half of No_Finding, and a grey-level histogram tells the
# two apart: so the classes are scored with and without them. Fibrosis and Hernia are too few.
TOO_FEW = ("Fibrosis", "Hernia")
BY_CONSTRUCTION = ("Pneumonia", "No_Finding")
RECIPES = {
    "defaults (asl, logit_adjust 1)": [],
    "bce, logit_adjust 0": ["--loss", "bce", "--logit_adjust", "0"],
}
BUDGET = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "160"),
    *("--epochs", "7", "--warmup_head_epochs", "1", "--warmup_epochs", "0.5"),
    *("--backbone_lr", "2e-4", "--head_lr", "5e-4", "--batch_size", "16", "--monitor", "mAUROC"),
]


def main() -> None:
    """Train both recipes where they are not trained yet, and print out-of-fold scores."""
    rows = []
    for number, (name, flags) in enumerate(RECIPES.items()):
        out = Path(f"outputs/nih1000_{number}")
        train(out, *BUDGET, *flags)
        rows += [(name, *score) for score in scores(out)]
    print(pd.DataFrame(rows, columns=["recipe", "labels", "mAUROC", "mAP"]).to_string(index=False))


def train(out: Path, *flags: str) -> None:
    """Run standard_head on nih1000 into `out`; what is there is not trained again."""
    data = _data()
    weights = data.parent / "weights" / "tf_efficientnet_lite0_in1k.safetensors"
    command = [
        *(sys.executable, "methods/standard_head/train.py", *flags),
        *("--train_csv", str(data / "nih1000" / "train.csv")),
        *("--train_dir", str(data / "nih1000" / "images")),
        *("--weights_file", str(weights), "--out_dir", str(out)),
    ]
    subprocess.run(command, check=True)


def read(out: Path, leave_out: Sequence[str] = TOO_FEW) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(predictions, labels with PatientID) of the folds in `out`, by image and class name."""
    labels = pd.read_csv(_data() / "nih1000" / "train.csv", dtype={"PatientID": str})
    files = sorted(out.glob("*_val.csv"))
    predictions = pd.concat([pd.read_csv(path, index_col="ImageID") for path in files])
    return (
        predictions.drop(columns=list(leave_out)),
        labels.set_index("ImageID").loc[predictions.index],
    )


def _data() -> Path:
    data = real_data()
    if data is None:
        raise UserError("nih1000 is not at hand: set CXR_REAL_DATA to the folder that holds it")
    return data


def scores(out: Path) -> list[tuple[int, str, str]]:
    """(number of labels, mAUROC, mAP) out of fold with 95 % intervals, for both sets of labels."""
    rows = []
    for leave_out in (TOO_FEW, TOO_FEW + BY_CONSTRUCTION):
        predictions, labels = read(out, leave_out)
        names = [str(name) for name in predictions]
        summary = evaluate(
            labels[names].to_numpy(float),
            predictions[names].to_numpy(),
            names,
            patients=labels["PatientID"].to_numpy(),
        ).summary
        texts = [
            "{:.3f} [{:.3f}, {:.3f}]".format(summary[metric], *summary["intervals"][metric])
            for metric in ("mAUROC", "mAP")
        ]
        rows.append((len(names), texts[0], texts[1]))
    return rows


if __name__ == "__main__":
    run(main)
