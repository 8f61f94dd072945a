"""Sound small checkpoints, states and kept blocks, as the project writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from ensemble.predict.blocks import Block
from tests.helpers.fuzz.checkpoint_targets import CLASSES, PARTS, kept_blocks, new_state
from tests.helpers.training.small_run import MODEL


def facts_of(method: str) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    _, kind = PARTS[method]
    return {
        "method": method,
        "class_names": CLASSES,
        "img_size": 32,
        "model": model_settings(kind(model=MODEL)),
        "settings": {"train_csv": ["train.csv"], "val_csv": []},
        **{"fold": 1, "folds": 2, "epoch": 3, "metrics": {"mAP": 0.5}},
    }


def write_all(folder: str) -> None:
    """A file of each kind, named by what it is used for (`checkpoint_targets.USES`)."""
    torch.manual_seed(0)
    models = {}
    for method, (part, kind) in PARTS.items():
        models[method] = part.build_model(kind(model=MODEL), len(CLASSES)).state_dict()
        save_tensors(Path(folder, f"{method}.safetensors"), models[method], facts_of(method))
    for name, method in (("start", "standard_head"), ("couplings", "label_coupling")):
        save_tensors(Path(folder, f"{name}.safetensors"), models[method], facts_of(method))
    prefix = "backbone.network."
    network = {
        name.removeprefix(prefix): tensor.clone()
        for name, tensor in models["standard_head"].items()
        if name.startswith(prefix)
    }
    save_file(network, Path(folder, "weights.safetensors"))
    state, optimizer = new_state()
    state.model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    state.save(Path(folder, "state.safetensors"), "whole", optimizer)
    with kept_blocks() as parts:
        parts.open()
        block = Block(np.arange(5), np.full((1, 5, 3), 0.5, np.float32), [(5, "it is no image")])
        parts.write(0, block)
        parts._files[0].rename(Path(folder, "block.safetensors"))
