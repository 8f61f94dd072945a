"""Plain training loop that a reader would write, the reference of all methods. Not a command.

A linear head and BCE on a timm network: AdamW, batches of 32, moving average of .99, a mirrored
copy in validation, eight epochs. Only tables, folds and decoding are those of the methods.
"""

import math
from pathlib import Path

import albumentations as A
import numpy as np
import timm
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from core.data.images.decode import resize
from core.data.splits import assign_folds
from core.data.tables import LabelTable

SIZE, EPOCHS = 128, 8


def assign(table: LabelTable, seed: int) -> np.ndarray:
    """Fold (from 1) of each image, as the methods assign it."""
    # folds do not depend on the order of the rows
    order = np.argsort(np.asarray(table.ids), kind="stable")
    folds = np.empty(len(table), dtype=int)
    patients = None if table.patients is None else table.patients[order]
    folds[order] = assign_folds(table.targets[order], patients, folds=3, seed=seed) + 1
    return folds


def train(
    table: LabelTable, folds: np.ndarray, fold: int, weights: Path, seed: int, rate: float = 8e-4
) -> Tensor:
    """Probabilities of the images of `fold` after each epoch of training on the others, (E, V, C).

    rate: peak learning rate of the backbone; that of the head is ten times as high.
    """
    rows, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    torch.manual_seed(1000 * seed + fold)
    random = np.random.default_rng((seed, fold))
    transforms = [
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.03, 0.03), scale=(0.95, 1.05), rotate=(-7, 7), p=0.5),
        A.RandomBrightnessContrast(0.08, 0.08, p=0.2),
    ]
    augment = A.Compose(transforms, seed=1000 * seed + fold)
    model = timm.create_model(
        "tf_efficientnet_lite0",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights)},
        in_chans=1,
        num_classes=len(table.class_names),
    ).to(memory_format=torch.channels_last)
    average = ModelEmaV3(model, decay=0.99, use_warmup=True)
    body = [value for name, value in model.named_parameters() if "classifier" not in name]
    head = [value for name, value in model.named_parameters() if "classifier" in name]
    groups = [{"params": body, "lr": rate}, {"params": head, "lr": 10 * rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, fused=True)
    steps, warmup = EPOCHS * (len(rows) // 32), len(rows) / 64
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    images = np.stack([resize(table.images.read(row), SIZE) for row in range(len(table))])
    targets, found = torch.from_numpy(table.targets), []
    for epoch in range(EPOCHS):
        model.train()
        for chosen in random.permutation(rows)[: steps // EPOCHS * 32].reshape(-1, 32):
            batch = np.stack([augment(image=images[row])["image"] for row in chosen])
            loss = binary_cross_entropy_with_logits(model(scaled(batch)), targets[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            average.update(model, step=schedule.last_epoch)
        found.append(predict(average.module, images[held_out]))
        print(f"fold {fold}  epoch {epoch + 1}/{EPOCHS}  loss {loss.item():.4f}", flush=True)
    return torch.stack(found)


def scaled(images: np.ndarray) -> Tensor:
    """Images uint8 (B, H, W) as the network's input, float32 (B, 1, H, W) within -1 and 1."""
    return torch.from_numpy(images)[:, None].float() / 127.5 - 1


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray) -> Tensor:
    """Probabilities (V, C), the mean of each image and its mirrored copy."""
    parts = [scaled(images[start : start + 64]) for start in range(0, len(images), 64)]
    return torch.cat([(model(x).sigmoid() + model(x.flip(3)).sigmoid()) / 2 for x in parts])
