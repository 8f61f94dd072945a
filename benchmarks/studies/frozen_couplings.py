"""Couplings fitted to frozen logits: the search for a penalty, and the ranks of planted ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from core.data.splits.folds import assign_folds
from core.losses import build_loss
from core.metrics import evaluate
from core.models.checkpoint import load_tensors
from methods.label_coupling.fit_couplings import fit_couplings
from methods.label_coupling.model import LabelCoupling

PENALTIES = (0.0, 1e-6, 1e-5, 3e-5, 1e-4)
ALPHA, RATE = 0.3, 0.01
# probabilities in a CSV have eight digits
CLIP = 1e-7


def search(predictions: pd.DataFrame, labels: pd.DataFrame, loss_name: str) -> pd.DataFrame:
    """One row a penalty: scores on held-out patients, and the share of exact zeros."""
    logits, targets, names = tensors(predictions, labels)
    patients = labels.loc[predictions.index, "PatientID"].to_numpy()
    folds = assign_folds(targets.numpy(), patients, folds=3)
    rows = []
    for penalty in (None, *PENALTIES):
        refined, zeros = logits.clone(), []
        for fold in range(3):
            train, held_out = torch.from_numpy(folds != fold), torch.from_numpy(folds == fold)
            known = targets[train]
            loss = build_loss(loss_name, (known == 1).sum(0), len(known))
            coupling = LabelCoupling(len(names), ALPHA)
            if penalty is not None:
                fit_couplings(coupling, logits[train], known, loss, l1=penalty, lr=RATE)
            with torch.no_grad():
                refined[held_out] = coupling(logits[held_out])
            zeros.append(share_of_zeros(coupling.A))
        entropy = nn.functional.binary_cross_entropy_with_logits(refined, targets)
        summary = evaluate(targets.numpy(), refined.sigmoid().numpy(), names, resamples=0).summary
        rows.append(
            {
                "penalty": "no couplings" if penalty is None else f"{penalty:g}",
                "zeros": f"{np.mean(zeros):.0%}",
                "cross-entropy": f"{entropy.item():.5f}",
                "mAUROC": f"{summary['mAUROC']:.4f}",
                "mAP": f"{summary['mAP']:.4f}",
            }
        )
    return pd.DataFrame(rows)


def tensors(
    predictions: pd.DataFrame, labels: pd.DataFrame
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Logits and targets (N, C), and the labels' names."""
    names = [str(name) for name in predictions]
    targets = torch.from_numpy(labels.loc[predictions.index, names].to_numpy(np.float32))
    clipped = predictions.to_numpy().clip(CLIP, 1 - CLIP)
    return torch.from_numpy(np.log(clipped / (1 - clipped)).astype(np.float32)), targets, names


def after_calibration(
    predictions: pd.DataFrame, labels: pd.DataFrame, penalty: float
) -> pd.DataFrame:
    """Couplings of logits that were calibrated first, each label by itself (Platt 1999)."""
    logits, targets, names = tensors(predictions, labels)
    scale, bias = (x.requires_grad_() for x in (torch.ones(len(names)), torch.zeros(len(names))))
    optimizer = torch.optim.LBFGS([scale, bias], max_iter=60, line_search_fn="strong_wolfe")
    loss = nn.BCEWithLogitsLoss()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(scale * logits + bias, targets)
        value.backward()
        return value

    optimizer.step(closure)
    told = ", ".join(f"{n} {x:.2f}" for n, x in zip(names, scale.tolist(), strict=True))
    print(f"\nbest scale of each logit by itself: {told}")
    coupling = LabelCoupling(len(names), ALPHA)
    calibrated = (scale * logits + bias).detach()
    fit_couplings(coupling, calibrated, targets, loss, l1=penalty, lr=RATE)
    return pd.DataFrame(coupling.A.detach().numpy(), index=names, columns=names)


def share_of_zeros(couplings: torch.Tensor) -> float:
    """Of the entries off the diagonal, those that are exactly 0."""
    size = len(couplings)
    return ((couplings == 0).sum().item() - size) / (size * size - size)


def mean_couplings(files: list[Path]) -> pd.DataFrame:
    """The couplings of checkpoints of the same labels: from row on column, mean over the files."""
    loaded = [load_tensors(path) for path in files]
    names = loaded[0][1]["class_names"]
    mean = torch.stack([tensors["head.coupling.A"] for tensors, _ in loaded]).mean(0)
    return pd.DataFrame(mean.numpy(), index=names, columns=names)


def ranks(couplings: pd.DataFrame, planted: pd.DataFrame) -> pd.DataFrame:
    """Of each planted coupling the weight, its rank by |weight| in all, and on its target."""
    strength = couplings.abs().to_numpy()
    rows = []
    for source, target in zip(planted["source"], planted["target"], strict=True):
        weight = couplings[target].to_dict()[source]
        own = abs(weight)
        rows.append(
            {
                "coupling": f"{source} → {target}",
                "weight": weight,
                "rank": int((strength > own).sum()) + 1,
                "of": int((strength > 0).sum()),
                "on its target": int((couplings[target].abs() > own).sum()) + 1,
            }
        )
    return pd.DataFrame(rows).set_index("coupling")
