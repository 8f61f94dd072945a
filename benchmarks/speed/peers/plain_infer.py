"""Prediction by several checkpoints that a reader would write; a peer of `ensemble.infer`.

    python benchmarks/speed/peers/plain_infer.py IMAGES OUT.csv CHECKPOINT...

Mean of all checkpoints over each image and its mirror image. Models are built by this project, as
nothing else can.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from methods import load_model

BATCH, WORKERS = 64, 1


class Films(Dataset):
    """Images of a folder at one size, uint8 (1, H, W)."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.iterdir()), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        image = Image.open(self.paths[row]).convert("L").resize((self.size, self.size))
        return torch.from_numpy(np.array(image))[None]


@torch.no_grad()
def main(folder: Path, csv: Path, checkpoints: list[Path]) -> None:
    """Predict and write the CSV."""
    loaded = [load_model(path) for path in checkpoints]
    models = [model.eval().to(memory_format=torch.channels_last) for model, _ in loaded]
    films = Films(folder, loaded[0][1].image_size)
    found = []
    for images in DataLoader(films, BATCH, num_workers=WORKERS):
        copies = [images, images.flip(-1)]
        logits = [model(copy) for model in models for copy in copies]
        found.append(torch.stack(logits).sigmoid().mean(0))
    frame = pd.DataFrame(torch.cat(found).numpy(), columns=list(loaded[0][1].class_names))
    frame.insert(0, "ImageID", [path.name for path in films.paths])
    frame.to_csv(csv, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    main(**vars(parser.parse_args()))
