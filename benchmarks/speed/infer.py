"""What does `ensemble.infer` cost over its forward passes? Two minutes on two cores, on the CPU.

Three models at two image sizes and six views, against one decoding of each image and eighteen
forward passes of the bare models, in the same process and on the same images. Then the peak memory
of the whole command, workers and all, on 10,000 images against 1,000.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from benchmarks.runner import Answer, middle, real_data, timed
from benchmarks.speed.memory import can_measure, link_images, peak_of
from core.data.images.decode import read_image, resize
from core.data.phantom.dataset import make_phantom
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from ensemble.predict.members import Member, load_members
from ensemble.predict.merge import model_shares
from ensemble.predict.predictor import Predictor, Views, predict_to_csv
from ensemble.predict.tta import VIEWS
from ensemble.predict.write_csv import Finish
from methods.standard_head.config import ModelConfig, small
from methods.standard_head.model import build_model

VIEW_SET = "flip_scale"
SIZES = (96, 96, 128)
CLASSES = 14
IMAGES, BATCH, ROUNDS = 32, 32, 7


def answers() -> Iterator[Answer]:
    """Wall time against decoding and bare passes, and memory against ten times fewer images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_phantom(folder / "phantom", images=100, size=64)
        data = real_data()
        source = folder / "phantom" / "images" if data is None else data / "nih1000" / "images"
        checkpoints = save_models(folder, small().model, SIZES)
        yield compare(folder, checkpoints, source, IMAGES, ROUNDS)
        if not can_measure():
            return
        model = ModelConfig(model="test_efficientnet", pretrained=False)
        tiny = save_models(folder, model, (32,))
        few, many = (peak_megabytes(folder, tiny, images) for images in (1_000, 10_000))
        yield Answer(
            "infer: peak memory, 10,000 images", many, "1,000 images", few, "MB", ceiling=1.05
        )


def save_models(folder: Path, config: ModelConfig, sizes: Sequence[int]) -> list[Path]:
    """Checkpoints of untrained models, one for each image size."""
    paths = []
    for number, size in enumerate(sizes):
        torch.manual_seed(number)
        model = build_model(config, CLASSES)
        facts = {
            "method": "standard_head",
            "model": model_settings(config),
            "class_names": [f"class {place}" for place in range(CLASSES)],
            "img_size": size,
        }
        paths.append(folder / f"{config.model}_{number}.safetensors")
        save_tensors(paths[-1], dict(model.state_dict()), facts)
    return paths


def compare(
    folder: Path, checkpoints: Sequence[Path], source: Path, images: int, rounds: int
) -> Answer:
    """Seconds of predicting `images` of `source` by all models and views, against the bare work."""
    fabric = Fabric(accelerator="cpu", devices=1)
    members = load_members(checkpoints)
    found = find_images(source, None)
    table = _first(found, images)
    classes = list(members[0].info.class_names)
    predictor = Predictor(fabric, members, classes, Views(names=VIEW_SET))

    def ours() -> None:
        with redirect_stdout(StringIO()):
            predict_to_csv(
                fabric,
                predictor,
                table,
                folder / "p.csv",
                Finish(shares=model_shares((), len(members))),
                batch_size=BATCH,
                workers=0,
                overwrite=True,
            )

    def bare() -> None:
        decode_and_pass(members, table.paths)

    pairs = [(timed(ours)(), timed(bare)()) for _ in range(rounds + 1)][1:]
    measured, reference = middle(pairs)
    passes = f"decode + {len(members)} x {len(VIEWS[VIEW_SET])} passes"
    return Answer(f"infer: {images} images", measured, passes, reference, "s", ceiling=1.08)


def _first(table: LabelTable, images: int) -> LabelTable:
    return table.take(np.arange(images))


@torch.no_grad()
def decode_and_pass(members: Sequence[Member], paths: Sequence[str]) -> None:
    """Decode each image once, and show it to each model as often as there are views."""
    sizes = sorted({member.info.image_size for member in members})
    for start in range(0, len(paths), BATCH):
        pixels = [read_image(path) for path in paths[start : start + BATCH]]
        for size in sizes:
            images = torch.from_numpy(np.stack([resize(one, size) for one in pixels]))[:, None]
            for member in members:
                if member.info.image_size == size:
                    for _ in VIEWS[VIEW_SET]:
                        member.model(images)


def peak_megabytes(folder: Path, checkpoints: Sequence[Path], images: int) -> float:
    """Peak of the summed proportional memory of one command with two workers."""
    data = folder / str(images)
    link_images(folder / "phantom", data, images)
    command = [
        *(sys.executable, "-m", "ensemble.infer", "--checkpoints", *map(str, checkpoints)),
        *("--image_dir", str(data / "images"), "--num_workers", "2", "--no-use_tta"),
        *("--output", str(data / "p.csv")),
    ]
    return peak_of(command)
