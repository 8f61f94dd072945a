"""Image sets for benchmarks: real or procedural X-rays, links to few files, and packs."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runner import output_of, real_data
from core.data.phantom.dataset import make_phantom


def image_set(folder: Path, name: str, images: int, size: int = 160) -> Path:
    """Real image set `name` (train.csv and images), or without real data a phantom in `folder`."""
    data = real_data()
    if data is not None:
        return data / name
    make_phantom(folder / "phantom", images, size)
    return folder / "phantom"


def linked_images(folder: Path, images: int) -> Path:
    """Image set of `images` rows, four a patient, with links to 100 files of 64 pixels.

    One that is there already is used again.
    """
    few, many = folder / "few", folder / str(images)
    if (many / "train.csv").exists():
        return many
    if not few.exists():
        make_phantom(few, images=100, size=64)
    (many / "images").mkdir(parents=True)
    table = pd.read_csv(few / "train.csv")
    rows = table.iloc[np.arange(images) % len(table)].copy()
    names = [f"{number:06d}.png" for number in range(images)]
    for source, name in zip(rows["ImageID"], names, strict=True):
        os.link(few / "images" / source, many / "images" / name)
    rows["ImageID"], rows["PatientID"] = names, np.arange(images) // 4
    rows.to_csv(many / "train.csv", index=False)
    return many


def training(data: Path, out: Path, *flags: object, images: Path | None = None) -> list[object]:
    """Arguments of `python` that train standard_head's preset `small` on an image set."""
    return [
        *("methods/standard_head/train.py", "--preset", "small", "--no-pretrained"),
        *("--train_csv", data / "train.csv", "--train_dir", images or data / "images"),
        *("--out_dir", out, "--warmup_head_epochs", "0", *flags),
    ]


def make_pack(images: Path, size: int, pack: Path) -> Path:
    """Pack an image set by the command."""
    words = ("--train_csv", images / "train.csv", "--train_dir", images / "images")
    output_of("-m", "core.data.pack", *words, "--size", size, "--out", pack)
    return pack
