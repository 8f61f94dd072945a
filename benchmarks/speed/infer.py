"""Overhead of `ensemble.infer` over its forward passes. Two minutes on two CPU cores.

Three models at two image sizes and six augmented copies, against decoding each image once and
eighteen forward passes of the bare models, in the same process and on the same images. Then the
peak memory of the whole command, workers included, on 10,000 images against 1,000.
"""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from benchmarks.images import image_set
from benchmarks.runner import Answer, alternate, timed
from benchmarks.speed.memory import growth
from core.data.images.decode import read_image, resize
from core.data.tables.images_to_predict import find_images
from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from ensemble.predict.config import MergeConfig, ModelsConfig
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.predictor import Predictor
from ensemble.predict.tta import TTA
from ensemble.predict.write_csv import OutputOptions, predict_to_csv
from methods.standard_head.config import ModelConfig, small
from methods.standard_head.model import build_model

COPIES: Literal["flip_scale"] = "flip_scale"
SIZES = (96, 96, 128)
CLASSES = 14
IMAGES, BATCH, ROUNDS = 32, 32, 3


def answers(folder: Path) -> Iterator[Answer]:
    source = image_set(folder, "nih1000", images=100, size=64) / "images"
    yield compare(folder, save_models(folder, small().model, SIZES), source, IMAGES, ROUNDS)
    tiny = ModelConfig(model="test_efficientnet", pretrained=False)
    (checkpoint,) = save_models(folder, tiny, (32,))

    def command(data: Path) -> list[object]:
        return [
            *("-m", "ensemble.infer", "--checkpoints", checkpoint, "--no-use_tta"),
            *("--image_dir", data / "images", "--num_workers", "2", "--output", data / "p.csv"),
        ]

    yield from growth(
        folder / "links", "infer: peak memory", (1_000, 10_000), command, ceiling=1.05
    )


def save_models(folder: Path, config: ModelConfig, sizes: Sequence[int]) -> list[Path]:
    """Checkpoints of untrained models, one for each image size."""
    paths = []
    for number, size in enumerate(sizes):
        torch.manual_seed(number)
        facts = {
            "method": "standard_head",
            "model": model_settings(config),
            "class_names": [f"class {place}" for place in range(CLASSES)],
            "img_size": size,
        }
        paths.append(folder / f"{config.model}_{number}.safetensors")
        save_tensors(paths[-1], dict(build_model(config, CLASSES).state_dict()), facts)
    return paths


def compare(
    folder: Path, checkpoints: Sequence[Path], source: Path, images: int, rounds: int
) -> Answer:
    """Seconds to predict `images` of `source` by all models, against the bare loop."""
    fabric = Fabric(accelerator="cpu", devices=1)
    ensemble = Ensemble.load(ModelsConfig(checkpoints=tuple(checkpoints)))
    table = find_images(source, None).take(np.arange(images))
    predictor = Predictor(fabric, ensemble, MergeConfig(tta_config=COPIES))
    output, options = folder / "p.csv", OutputOptions(overwrite=True)

    def ours() -> None:
        with redirect_stdout(StringIO()):
            predict_to_csv(predictor, table, output, options, batch_size=BATCH, workers=0)

    bare = timed(lambda: decode_and_pass(ensemble.members, table.paths))
    passes = f"decode + {len(checkpoints)} x {len(TTA[COPIES])} passes"
    measured = alternate(timed(ours), bare, rounds)
    return Answer(f"infer: {images} images", "s", passes, *measured, ceiling=1.08)


@torch.no_grad()
def decode_and_pass(members: Sequence[Member], paths: Sequence[str]) -> None:
    """Decode each image once, then one forward pass for each model and augmented copy."""
    sizes = sorted({member.info.image_size for member in members})
    for start in range(0, len(paths), BATCH):
        pixels = [read_image(path) for path in paths[start : start + BATCH]]
        for size in sizes:
            images = torch.from_numpy(np.stack([resize(one, size) for one in pixels]))[:, None]
            for member in members:
                if member.info.image_size == size:
                    for _ in TTA[COPIES]:
                        member.model(images)
