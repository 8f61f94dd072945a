"""K models with V augmented copies by `Predictor`, over bare passes of the models."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from benchmarks.gpu.plan import Figure, Plan, build
from benchmarks.runner import alternate, seconds, timed
from benchmarks.speed.infer import CLASSES, COPIES
from core.data.tables.images_to_predict import find_images
from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from core.runtime.fabric import worker_count
from ensemble.predict.config import MergeConfig, ModelsConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.predictor import Predictor
from ensemble.predict.tta import TTA
from ensemble.predict.write_csv import OutputOptions, predict_to_csv

BATCH, BATCHES = 16, 4


def save_model(plan: Plan, method: str, folder: Path) -> Path:
    """Checkpoint of the method's untrained model."""
    config = plan.config(method)
    size = config.loader.img_size
    torch.manual_seed(0)
    facts = {
        "method": method,
        "model": model_settings(config.model),
        "class_names": [f"class {place}" for place in range(CLASSES)],
        "img_size": size,
    }
    path = folder / f"{method}.safetensors"
    model = build(method)(config.model, CLASSES, None, img_size=size)
    save_tensors(path, dict(model.state_dict()), facts)
    return path


def compare_prediction(plan: Plan, data: Path, folder: Path) -> Iterator[Figure]:
    """Seconds of `Predictor` over bare passes on the same batches, and of `ensemble.infer`'s core.

    The latter predicts a pack, from the start of its workers to the written CSV.
    """
    paths = tuple(save_model(plan, method, folder) for method in plan.batches)
    ensemble = Ensemble.load(ModelsConfig(checkpoints=paths))
    predictor = Predictor(plan.fabric(), ensemble, MergeConfig(tta_config=COPIES))
    batch = [torch.randint(0, 256, (BATCH, 1, s, s), dtype=torch.uint8) for s in ensemble.sizes]
    if plan.device == "cuda":
        batch = [images.pin_memory() for images in batch]

    def ours() -> None:
        for _ in range(BATCHES):
            predictor(batch)

    @torch.no_grad()
    def passes() -> None:
        for _ in range(BATCHES):
            images = {
                size: part.to(plan.device) for size, part in zip(ensemble.sizes, batch, strict=True)
            }
            for member in ensemble.members:
                for _ in TTA[COPIES]:
                    with plan.autocast():
                        member.model(images[member.info.image_size])
        plan.wait()

    images = BATCH * BATCHES
    what = f"{len(paths)} x {len(TTA[COPIES])} passes"
    took, bare = alternate(timed(ours), timed(passes), 3)
    yield Figure(
        "prediction, batches in memory", "images/s", what, images / took, images / bare, floor=0.92
    )
    size = max(ensemble.sizes)
    table = find_images(data / f"pack{size}", None)
    output, options = folder / "p.csv", OutputOptions(overwrite=True)

    def command() -> None:
        with redirect_stdout(StringIO()):
            workers = worker_count(plan.workers)
            predict_to_csv(predictor, table, output, options, batch_size=BATCH, workers=workers)

    speed = len(table) / seconds(command, 1)
    yield Figure("prediction of a pack, CSV included", "images/s", what, speed, images / bare)
