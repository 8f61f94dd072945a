"""Multi-label training from timm's parts, as in its train.py; a peer.

    python benchmarks/speed/peers/timm_train.py DATA OUT

DATA has train.csv and val.csv (image name, a column a class) and images. Nothing of this project is
used.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MODEL, SIZE, BATCH, WORKERS, EPOCHS, RATE = "tf_efficientnet_lite0", 160, 32, 1, 3, 4e-4


class Films(Dataset):
    """Images of a CSV."""

    def __init__(self, data: Path, name: str, transform: Any) -> None:
        table = pd.read_csv(data / name, index_col=0)
        self.paths = [data / "images" / image for image in table.index]
        self.targets = torch.tensor(table.to_numpy(), dtype=torch.float32)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[row]).convert("RGB")), self.targets[row]


def main(data: Path, out: Path) -> None:
    """Train and validate."""
    augment = create_transform(SIZE, is_training=True, scale=(0.8, 1.0), color_jitter=0.0)
    training = Films(data, "train.csv", augment)
    validation = Films(data, "val.csv", create_transform(SIZE, crop_pct=1.0))
    loader = DataLoader(training, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS)
    held_out = DataLoader(validation, BATCH, num_workers=WORKERS)
    model = timm.create_model(MODEL, num_classes=training.targets.shape[1])
    model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=1e-4)
    schedule, epochs = create_scheduler_v2(
        optimizer, "cosine", EPOCHS, updates_per_epoch=len(loader), step_on_epochs=False
    )
    average = ModelEmaV3(model, decay=0.999, use_warmup=True)
    out.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=str(out))
    loss_of, updates = nn.BCEWithLogitsLoss(), 0
    for epoch in range(epochs):
        model.train()
        losses, began, seen = AverageMeter(), time.perf_counter(), 0
        for images, targets in loader:
            if not updates:
                print("first step", flush=True)
            loss = loss_of(model(images.to(memory_format=torch.channels_last)), targets)
            loss.backward()
            dispatch_clip_grad(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            average.update(model, step=updates)
            losses.update(loss.item(), len(images))
            schedule.step_update(updates)
            seen += len(images)
        speed = seen / (time.perf_counter() - began)
        score = validate(average, held_out)
        saver.save_checkpoint(epoch, score)
        print(f"epoch {epoch}: loss {losses.avg:.4f}, AUROC {score:.4f}, {speed:.2f} images/s")


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader) -> float:
    """Mean AUROC of the classes with both labels."""
    model.eval()
    found: list[tuple[Tensor, Tensor]] = [
        (model(images.to(memory_format=torch.channels_last)).sigmoid(), targets)
        for images, targets in loader
    ]
    scores, targets = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    both = [column for column in range(targets.shape[1]) if 0 < targets[:, column].mean() < 1]
    return float(roc_auc_score(targets[:, both], scores[:, both]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    main(**vars(parser.parse_args()))
