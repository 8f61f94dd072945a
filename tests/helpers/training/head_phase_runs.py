"""Head phases of a tiny network that counts its forward passes and records the head's input."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.config.training import LoaderConfig
from core.data.loading.augmentation import Augmentation, light_transforms
from core.data.loading.fold_data import FoldData
from core.losses import build_loss
from core.runtime.fabric import make_fabric
from core.training.loop import FoldTrainer
from core.training.optimizer import Phase
from methods.csra_db_cas.model import CSRAHead, NormalisedCSRA
from tests.helpers.training.toy_model import Toy, half_known, toy_run

BATCH, VALIDATION = 4, 10
# 50 images to train on: 6 updates of 8
UPDATES, ACCUMULATE = 6, 2
HEAD = Phase("head", 5, {"head": 1e-2})


class Watched(nn.Module):
    """Tiny model that records the input of its parts during training."""

    def __init__(self, classes: int, *, maps: bool) -> None:
        super().__init__()
        toy = Toy(classes, nn.BatchNorm2d(2))
        self.backbone: nn.Module = toy.backbone[:-2] if maps else toy.backbone
        self.head: nn.Module = (
            NormalisedCSRA(2, CSRAHead(2, classes, heads=2))
            if maps
            else nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, classes))
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Run(NamedTuple):
    """Result of a training: folder, weights, and number of batches of each part."""

    folder: Path
    weights: dict[str, Tensor]
    computed: int
    heads_inputs: list[Tensor]


def fold_of(data: Path) -> FoldData:
    """Augmented images of a phantom, of which an epoch draws some twice and others not at all."""
    table = half_known(data)
    rows = np.arange(len(table))
    loader = LoaderConfig(img_size=32, batch_size=BATCH, num_workers=0, sampler="class_aware")
    augment = Augmentation(light_transforms(), seed=0)
    fabric, parts = make_fabric(amp="off"), (rows[:-VALIDATION], rows[-VALIDATION:])
    return FoldData(fabric, 1, table, *parts, loader, ACCUMULATE, augment)


def watched(fold: FoldData, *, maps: bool = False) -> Watched:
    """An untrained model for the classes of `fold`, always the same."""
    torch.manual_seed(0)
    return Watched(len(fold.table.class_names), maps=maps)


def train(
    fold: FoldData,
    folder: Path,
    views: int,
    *phases: Phase,
    maps: bool = False,
    spoil: int | None = None,
    **loop: Any,
) -> Run:
    """Train in `folder` with so many cached passes; output number `spoil` of the head is NaN."""
    folder.mkdir(exist_ok=True)
    model = watched(fold, maps=maps)
    inputs: list[Tensor] = []
    computed = 0

    def count(*_: object) -> None:
        nonlocal computed
        computed += 1

    def look(head: nn.Module, given: tuple[Tensor]) -> None:
        if head.training:
            inputs.append(given[0].detach().clone())

    def ruin(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        return logits * torch.nan if len(inputs) == spoil else logits

    handles = [
        model.backbone.register_forward_pre_hook(count),
        model.head.register_forward_pre_hook(look),
        model.head.register_forward_hook(ruin),
    ]
    run = toy_run(fold, folder, accumulate=ACCUMULATE, **loop)
    loss = build_loss("bce", *fold.training_counts())
    passes = [replace(one, head_views=views) if one.head_only else one for one in phases or [HEAD]]
    fit = FoldTrainer(run, fold, model, loss, passes)
    try:
        fit.fit()
    finally:
        for handle in handles:
            handle.remove()
    return Run(folder, dict(model.state_dict()), computed, inputs)


def assert_same(ours: Run, theirs: Run) -> None:
    """Assert equal bits of the last and best weights, records and predictions."""
    assert ours.weights.keys() == theirs.weights.keys()
    for name, value in theirs.weights.items():
        assert torch.equal(ours.weights[name], value), name
    for name in ("metrics.csv", "toy_fold1_val.csv"):
        assert (ours.folder / name).read_bytes() == (theirs.folder / name).read_bytes()
    kept, expected = (load_file(run.folder / "toy_fold1.safetensors") for run in (ours, theirs))
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def features_by_image(model: Watched, fold: FoldData, epoch: int) -> dict[bytes, int]:
    """Table rows by the features of the images of `epoch`, computed one batch after another."""
    found: dict[bytes, int] = {}
    for batch in fold.training(epoch, epoch + 1, 0):
        with torch.no_grad():
            features = model.backbone.eval()(batch.images)
        found |= {
            one.contiguous().numpy().tobytes(): row
            for one, row in zip(features, batch.rows.tolist(), strict=True)
        }
    return found
