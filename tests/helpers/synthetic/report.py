"""Synthetic scores of five classes and history of a run, for tests of reports."""

import numpy as np
import pandas as pd

from core.metrics import Evaluation, evaluate

EVIL = "<script>alert('x')</script>"
NAMES = ["Effusion", "Nodule $x_$", EVIL, "A very long name of a very rare finding", "Never seen"]
TRAINING = [0.3, 0.12, 0.05, 0.002, 0.001]


def synthetic_scores() -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """Evaluation, targets and probabilities of five classes, the last without positives."""
    random = np.random.default_rng(0)
    targets = (random.random((300, 5)) < [0.3, 0.2, 0.1, 0, 0]).astype(float)
    targets[[5, 100, 200], 3] = 1
    targets[0, 0] = np.nan
    probabilities = 1 / (1 + np.exp(1 - 2 * np.nan_to_num(targets) - random.normal(size=(300, 5))))
    patients = np.arange(300) // 2
    evaluation = evaluate(targets, probabilities, NAMES, TRAINING, patients, resamples=100)
    return evaluation, targets, probabilities


def synthetic_history() -> pd.DataFrame:
    """Two folds of four epochs in two phases; the best weights are of epochs 3 and 2."""
    table = pd.DataFrame({"fold": [1] * 4 + [2] * 4, "epoch": [1, 2, 3, 4] * 2})
    table["phase"] = ["head", "all", "all", "all"] * 2
    table["train_loss"] = [0.5, 0.4, 0.3, 0.2] * 2
    table["mAP"] = [0.1, 0.2, 0.4, 0.3, 0.1, 0.5, 0.2, 0.3]
    table["mAUROC"] = [0.6, 0.7, 0.8, 0.9] * 2
    table["best"] = [1, 1, 1, 0, 1, 1, 0, 0]
    table["backbone_lr"] = [0.0, 0.1, 0.1, 0.1] * 2
    table["head_lr"] = [1.0, 0.5, 0.5, 0.5] * 2
    table["lr_factor"] = [0.25, 1.0, 0.5, 0.0] * 2
    return table
