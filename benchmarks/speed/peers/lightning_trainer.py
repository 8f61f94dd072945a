"""Multi-label training that a reader of Lightning's documentation would write; a peer.

    python benchmarks/speed/peers/lightning_trainer.py DATA OUT

DATA has train.csv and val.csv (image name, a column a class) and images. Nothing of this project is
used.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import timm
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision
from torchvision import transforms as T

MODEL, SIZE, BATCH, WORKERS, EPOCHS, RATE = "tf_efficientnet_lite0", 160, 32, 1, 3, 4e-4
NORMALIZE = T.Normalize([0.5] * 3, [0.5] * 3)
TRAINING = T.Compose(
    [
        T.RandomResizedCrop(SIZE, scale=(0.8, 1.0)),
        T.RandomHorizontalFlip(),
        T.RandomRotation(10),
        *(T.ToTensor(), NORMALIZE),
    ]
)
VALIDATION = T.Compose([T.Resize((SIZE, SIZE)), T.ToTensor(), NORMALIZE])


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


class Classifier(pl.LightningModule):
    """A network, its loss and its scores."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.model = timm.create_model(MODEL, num_classes=classes)
        self.scores = MetricCollection(
            {"auroc": MultilabelAUROC(classes), "map": MultilabelAveragePrecision(classes)}
        )

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        if number == 0:
            print("first step", flush=True)
        loss = binary_cross_entropy_with_logits(self.model(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        self.scores.update(self.model(batch[0]).sigmoid(), batch[1].long())
        self.log_dict(self.scores, on_epoch=True)

    def on_train_epoch_start(self) -> None:
        self.began, self.seen = time.perf_counter(), 0

    def on_train_batch_end(self, outputs: Any, batch: Any, number: int) -> None:
        self.seen += len(batch[0])
        self.took = time.perf_counter() - self.began

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(data: Path, out: Path) -> None:
    """Train and validate."""
    training, validation = Films(data, "train.csv", TRAINING), Films(data, "val.csv", VALIDATION)
    loaders = (
        DataLoader(training, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS),
        DataLoader(validation, BATCH, num_workers=WORKERS),
    )
    model = Classifier(training.targets.shape[1])
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        default_root_dir=out,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        logger=CSVLogger(out),
        callbacks=[ModelCheckpoint(out, monitor="auroc", mode="max")],
    )
    trainer.fit(model, *loaders)
    print(f"{model.seen / model.took:.2f} images/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    main(**vars(parser.parse_args()))
