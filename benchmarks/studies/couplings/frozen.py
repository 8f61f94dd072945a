"""Couplings fitted to frozen logits: search for a penalty, and ranks of planted couplings."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks.studies.runs import checkpoints
from core.data.splits.folds import assign_folds
from core.losses import build_loss
from core.metrics import evaluate
from core.models.checkpoint import load_tensors
from methods.label_coupling.fit_couplings import fit_couplings
from methods.label_coupling.model import LabelCoupling

PENALTIES = (None, 0.0, 1e-6, 1e-5, 3e-5, 1e-4)
ALPHA, RATE = 0.3, 0.01
# probabilities in a CSV have eight digits
CLIP = 1e-7


class Frozen(NamedTuple):
    """Predictions to which couplings are fitted."""

    names: list[str]
    logits: torch.Tensor  # (N, C)
    targets: torch.Tensor  # (N, C)
    patients: np.ndarray  # (N,)


def read(predictions: Path, labels: Path) -> Frozen:
    """Read predictions and labels, matched by image and class."""
    table = pd.read_csv(predictions, index_col=0)
    matched = pd.read_csv(labels, index_col="ImageID", dtype={"PatientID": str}).loc[table.index]
    targets = torch.from_numpy(matched[list(table)].to_numpy(np.float32))
    logits = torch.from_numpy(logit(table.to_numpy().clip(CLIP, 1 - CLIP)).astype(np.float32))
    return Frozen([*map(str, table)], logits, targets, matched["PatientID"].to_numpy())


def search(data: Frozen, loss_name: str) -> pd.DataFrame:
    """One row a penalty (None: no couplings): scores on held-out patients, and exact zeros in %."""
    targets, size = data.targets.numpy(), len(data.names)
    folds = torch.from_numpy(assign_folds(targets, data.patients, folds=3))
    rows = []
    for penalty in PENALTIES:
        refined, zeros = data.logits.clone(), []
        for fold in range(3):
            known = data.targets[folds != fold]
            loss = build_loss(loss_name, (known == 1).sum(0), len(known))
            coupling = LabelCoupling(size, ALPHA)
            if penalty is not None:
                logits = data.logits[folds != fold]
                fit_couplings(coupling, logits, known, loss, l1=penalty, lr=RATE)
            with torch.no_grad():
                refined[folds == fold] = coupling(data.logits[folds == fold])
            # the diagonal is always 0
            zeros.append(((coupling.A == 0).sum().item() - size) / (size * size - size))
        entropy = nn.functional.binary_cross_entropy_with_logits(refined, data.targets).item()
        summary = evaluate(targets, refined.sigmoid().numpy(), data.names, resamples=0).summary
        means = {name: summary[name] for name in ("mAUROC", "mAP")}
        rows.append({"zeros, %": np.mean(zeros) * 100, "cross-entropy": entropy} | means)
    return pd.DataFrame(rows, index=pd.Index(map(str, PENALTIES), name="penalty")).round(5)


def after_calibration(data: Frozen, penalty: float) -> pd.DataFrame:
    """Couplings of logits that were calibrated first, each label by itself (Platt 1999)."""
    print("\nbest scale of each logit by itself:")
    calibrated = []
    for name, logits, targets in zip(data.names, data.logits.T, data.targets.T, strict=True):
        column = logits.numpy()[:, None]
        fit = LogisticRegression(C=np.inf, tol=1e-8).fit(column, targets.numpy())
        calibrated.append(fit.decision_function(column))
        print(f"{name} {fit.coef_.item():.2f}")
    refined = torch.from_numpy(np.stack(calibrated, axis=1).astype(np.float32))
    coupling = LabelCoupling(len(data.names), ALPHA)
    fit_couplings(coupling, refined, data.targets, nn.BCEWithLogitsLoss(), l1=penalty, lr=RATE)
    return pd.DataFrame(coupling.A.detach().numpy(), index=data.names, columns=data.names)


def mean_couplings(run: Path) -> pd.DataFrame:
    """Couplings of a run: from row on column, mean over the folds."""
    loaded = [load_tensors(path) for path in checkpoints(run)]
    names = loaded[0][1]["class_names"]
    mean = torch.stack([tensors["head.coupling.A"] for tensors, _ in loaded]).mean(0)
    return pd.DataFrame(mean.numpy(), index=names, columns=names)


def ranks(couplings: pd.DataFrame, planted: pd.DataFrame) -> pd.DataFrame:
    """Weight of each planted coupling, its rank by |weight| among all, and on its target."""
    strength = couplings.abs()
    rows = {}
    for source, target in zip(planted["source"], planted["target"], strict=True):
        stronger = strength > strength.at[source, target]
        rows[f"{source} → {target}"] = {
            "weight": couplings.at[source, target],
            "rank": stronger.to_numpy().sum() + 1,
            "of": (strength.to_numpy() > 0).sum(),
            "on its target": stronger[target].sum() + 1,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
