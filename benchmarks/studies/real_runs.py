"""Runs on the 1,000 images of nih1000: their budget, training, predictions and scores.

Pandas and `core.metrics` are imported where they are used: the studies import this file before
they have read their flags.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runner import imagenet_weights, real_data
from core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# The set was built half of Pneumonia and half of No_Finding, and a grey-level histogram tells the
# two apart: so the classes are scored with and without them. Fibrosis and Hernia are too few.
TOO_FEW = ("Fibrosis", "Hernia")
BY_CONSTRUCTION = ("Pneumonia", "No_Finding")
EVERY = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "160"),
    *("--warmup_epochs", "0.5", "--batch_size", "16", "--monitor", "mAUROC"),
]
TWO_PHASES = [
    *("--epochs", "7", "--warmup_head_epochs", "1"),
    *("--backbone_lr", "2e-4", "--head_lr", "5e-4"),
    # the seed that the published tables were measured with
    *("--seed", "0"),
]
BUDGET = {
    "standard_head": EVERY + TWO_PHASES,
    "csra_db_cas": EVERY + TWO_PHASES,
    "label_coupling": [*EVERY, "--epochs", "8", "--lr", "2e-4"],
}


def train(method: str, out: Path, *flags: str, csv: Path | None = None) -> None:
    """Run a method on nih1000, or on the part in `csv`, into `out`, unless that is done already."""
    data = nih1000().parent
    command = [
        *(sys.executable, f"methods/{method}/train.py", *flags),
        *("--train_csv", str(csv or data / "nih1000" / "train.csv")),
        *("--train_dir", str(data / "nih1000" / "images")),
        *("--weights_file", str(imagenet_weights()), "--out_dir", str(out)),
    ]
    subprocess.run(command, check=True)


def read(out: Path, leave_out: Sequence[str] = TOO_FEW) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(predictions, labels with PatientID) of the folds in `out`, by image and class name."""
    import pandas as pd

    labels = pd.read_csv(nih1000() / "train.csv", dtype={"PatientID": str})
    files = sorted(out.glob("*_val.csv"))
    predictions = pd.concat([pd.read_csv(path, index_col="ImageID") for path in files])
    return (
        predictions.drop(columns=list(leave_out)),
        labels.set_index("ImageID").loc[predictions.index],
    )


def nih1000() -> Path:
    """The folder of the images and their table. Raises UserError where it is not at hand."""
    data = real_data()
    if data is None:
        raise UserError("nih1000 is not at hand: set CXR_REAL_DATA to the folder that holds it")
    return data / "nih1000"


def scores(out: Path, base: Path, leave_out: Sequence[str]) -> list[str]:
    """Labels, mAUROC and mAP out of fold, and what they have over `base`; 95 % intervals."""
    from core.metrics import evaluate, paired_difference

    predictions, labels = read(out, leave_out)
    names = [str(name) for name in predictions]
    targets, patients = labels[names].to_numpy(float), labels["PatientID"].to_numpy()
    own = evaluate(targets, predictions.to_numpy(), names, patients=patients).summary
    texts = [
        "{:.3f} [{:.3f}, {:.3f}]".format(own[metric], *own["intervals"][metric])
        for metric in ("mAUROC", "mAP")
    ]
    others = read(base, leave_out)[0].loc[predictions.index, names].to_numpy()
    gain = paired_difference(targets, predictions.to_numpy(), others, names, patients).summary
    texts += [
        "{:+.3f} [{:+.3f}, {:+.3f}]".format(gain[metric], *gain["intervals"][metric])
        if out != base
        else ""
        for metric in ("mAUROC", "mAP")
    ]
    return [str(len(names)), *texts]
