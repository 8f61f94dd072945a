"""What is measured of an epoch, and what is kept of the best one."""

import time
from typing import Any

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from torch import nn

from core.config.training import flat
from core.data.loading.fold_data import FoldData
from core.data.splits.prepare import Prepared
from core.io.atomic import write_atomically
from core.metrics import evaluate
from core.models.checkpoint import save_tensors
from core.runs.folder import FoldFiles
from core.runtime.fabric import versions

# of an evaluation's summary, what metrics.csv and the checkpoint hold
SCORES = ("mAP", "mAUROC", "mF1", "micro_AP", "ECE", "ECE_flat", "classes_scored")


def checkpoint_facts(
    method: str, model: dict[str, Any], config: Any, prepared: Prepared
) -> dict[str, Any]:
    """What each checkpoint of a run of `config` says of itself; `model` rebuilds the model."""
    settings = flat(config, whole_paths=not config.data.anonymous)
    return {
        "method": method,
        "model": model,
        "class_names": list(prepared.table.class_names),
        "img_size": settings["img_size"],
        "folds": prepared.folds,
        "settings": settings,
        "versions": versions(),
    }


def score_epoch(fabric: Fabric, data: FoldData, probabilities: np.ndarray) -> dict[str, float]:
    """SCORES of validation `probabilities` (V, C), computed once and equal on all ranks."""
    scores: dict[str, float] = {}
    if fabric.is_global_zero:
        targets = data.table.targets[data.val_rows]
        evaluation = evaluate(targets, probabilities, data.table.class_names, resamples=0)
        scores = {name: float(evaluation.summary[name]) for name in SCORES}
    return fabric.broadcast(scores)


def time_epoch(fabric: Fabric, images: int, began: float, trained: float) -> dict[str, Any]:
    """The speed of an epoch of `images` on this machine, for timing.csv.

    It `began` and had `trained` at these times of `time.monotonic`.
    """
    now = time.monotonic()
    return {
        "images_per_second": images / max(trained - began, 1e-9),
        "seconds": now - began,
        "evaluation_seconds": now - trained,
        "processes": fabric.world_size,
        "device": fabric.device.type,
    }


def save_best(
    files: FoldFiles,
    data: FoldData,
    module: nn.Module,
    probabilities: np.ndarray,
    scores: dict[str, float],
    facts: dict[str, Any],
) -> None:
    """Write the predictions (V, C) and the checkpoint of `module`, which says `facts` of itself.

    Predictions first: a checkpoint always has those of its epoch or a later one.
    """
    table = data.table
    frame = pd.DataFrame(probabilities, columns=list(table.class_names))
    frame.insert(0, "ImageID", np.asarray(table.ids, dtype=object)[data.val_rows])
    write_atomically(
        files.predictions, lambda path: frame.to_csv(path, index=False, float_format="%.8g")
    )
    positives, known = data.training_counts()
    told = facts | {
        "fold": data.fold,
        # JSON knows no NaN
        "metrics": {name: v if np.isfinite(v) else None for name, v in scores.items()},
        "training_positives": dict(zip(table.class_names, positives.tolist(), strict=True)),
        "training_known": dict(zip(table.class_names, known.tolist(), strict=True)),
    }
    save_tensors(files.weights, module.state_dict(), told)
