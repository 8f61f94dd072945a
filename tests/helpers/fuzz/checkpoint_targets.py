"""Valid checkpoints, states and prediction blocks, and readers of forged ones in the child."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from core.config.training import BackboneConfig, RunConfig
from core.data.images.collection import Images
from core.errors import UserError
from core.models.backbone import Backbone, model_settings
from core.models.checkpoint import load_tensors, save_tensors
from core.models.init_from import find_initial_weights
from core.training.ema import MovingAverage
from core.training.resume import ResumeState, is_finished
from ensemble.predict.blocks import Block, PredictionBlocks
from ensemble.predict.config import ModelsConfig
from ensemble.predict.ensemble import Ensemble
from methods.csra_db_cas import model as csra
from methods.csra_db_cas.config import ModelConfig as CSRAConfig
from methods.label_coupling import model as coupled
from methods.label_coupling.config import ModelConfig as CoupledConfig
from methods.label_coupling.coupling_matrices import read_fold
from methods.standard_head import model as standard
from methods.standard_head.config import Config
from methods.standard_head.config import ModelConfig as StandardConfig
from tests.helpers.fuzz.forged_safetensors import resealed
from tests.helpers.fuzz.mutations import flipped
from tests.helpers.training.small_run import MODEL

OUT = Path(os.environ["FUZZ_OUT"])
CLASSES = ["Mass", "Nodule", "Ödem"]
PARTS = {
    "standard_head": (standard, StandardConfig),
    "csra_db_cas": (csra, CSRAConfig),
    "label_coupling": (coupled, CoupledConfig),
}
IDENTITY = "a run, fold 1"


def facts_of(method: str) -> dict[str, Any]:
    """Facts (metadata) of a valid checkpoint."""
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
    with prediction_blocks() as parts:
        parts.open()
        block = Block(
            np.arange(5),
            np.full((1, 5, 3), 0.5, np.float32),
            [(5, "it is no image")],
            np.zeros((5, 1), np.int64),
        )
        parts.write(0, block)
        parts._files[0].rename(Path(folder, "block.safetensors"))


def base(name: str) -> Path:
    """The sound file that others are made of."""
    return OUT / "base" / f"{name}.safetensors"


def use(path: str) -> None:
    """Load a checkpoint, as ensemble.infer does up to the first image."""
    ensemble = Ensemble.load(ModelsConfig(checkpoints=(Path(path),)))
    print(ensemble)
    with torch.no_grad():
        logits = ensemble.members[0].model(torch.zeros(1, 1, 32, 32))
    assert logits.shape == (1, len(ensemble.class_names))


def start(path: str) -> None:
    """Load a checkpoint, as --init_from does."""
    config = Config(run=RunConfig(out_dir=OUT / "run"))
    config.model = StandardConfig(model=MODEL, init_from=Path(path))
    initial = find_initial_weights("standard_head", config, CLASSES)
    assert initial is not None
    print(initial.copy_into(standard.build_model(config.model, len(CLASSES))))


def weights(path: str) -> None:
    """Load a file of weights, as --weights_file does."""
    Backbone(BackboneConfig(model=MODEL, weights_file=Path(path)), Path(path))


def couplings(path: str) -> None:
    """Load a checkpoint, as the table of couplings does."""
    read_fold(Path(path))


def resume(path: str) -> None:
    """Read a resume state, as a resumed run does."""
    state, optimizer = new_state()
    is_finished(Path(path))
    state.load(Path(path), first=True)
    state.load_optimizer("whole", optimizer)


def new_state() -> tuple[ResumeState, torch.optim.Optimizer]:
    """The state of a small network before its first update."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = ResumeState(model, MovingAverage(model, 0.9), torch.device("cpu"), IDENTITY)
    return state, torch.optim.AdamW(model.parameters())


def block(path: str) -> None:
    """Read a block of predictions, as a resumed prediction does."""
    parts = prediction_blocks()
    shutil.copyfile(path, parts._files[0])
    with parts:
        if parts.open():
            raise UserError("it is invalid, and predicted again")
        parts.unreadable()


def prediction_blocks() -> PredictionBlocks:
    """Prediction blocks of six images."""
    images = Images.of_files([f"{number}.png" for number in range(6)])
    parts = PredictionBlocks(OUT / "predictions.csv", images, "s", 2)
    parts.folder.mkdir(exist_ok=True)
    return parts


def whole(name: str) -> None:
    """A valid file of any kind is accepted."""
    USES[name](str(base(name)))


def flip(name: str, place: int, mask: int, seal: bool) -> None:
    """A file with one byte changed, its checksum wrong, or made to fit."""
    path = OUT / f"{name}.safetensors"
    path.write_bytes(flipped(base(name).read_bytes(), place, mask))
    if seal:
        resealed(path)
    USES[name](str(path))
    if not seal:
        # the reader may take a space for another white space
        _same(*load_tensors(path), *load_tensors(base(name)))


def cut(name: str, length: int) -> None:
    """A truncated file is always refused."""
    path = OUT / f"{name}.safetensors"
    path.write_bytes(base(name).read_bytes()[:length])
    USES[name](str(path))
    raise AssertionError("it was taken up")


def at(name: str, path: str) -> None:
    """Read the file at this path as one of that kind."""
    USES[name](path)


def _same(tensors: dict, facts: dict, others: dict, expected: dict) -> None:
    assert facts == expected
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[key], others[key]) for key in others)


USES = {
    **dict.fromkeys(PARTS, use),
    "start": start,
    "couplings": couplings,
    "weights": weights,
    "state": resume,
    "block": block,
}
