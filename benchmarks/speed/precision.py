"""bf16 against fp32 on this CPU: training, prediction, probabilities. Two minutes on one core.

Steps of eight images as --amp times them, in alternation; then the
change of probabilities and AUROC over the images of a set, by a head that was trained on a frozen
backbone. No rows on a processor without bf16.
"""

from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pandas as pd
import timm
import torch
from lightning_fabric import Fabric
from torch import nn

from benchmarks.images import image_set, training
from benchmarks.runner import Answer, alternate, output_of, real_data, timed
from core.data.tables.images_to_predict import find_images
from core.metrics import evaluate
from core.runtime.precision import IMAGES, bf16_of_cpu
from ensemble.predict.config import MergeConfig, ModelsConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.predictor import Predictor
from ensemble.predict.write_csv import OutputOptions, predict_to_csv

NETWORKS = {
    **{"convnext_tiny": 224, "resnet50": 224},
    **{"tf_efficientnet_lite0": 160, "convnextv2_atto": 96},
}
ROUNDS = 3


def answers(folder: Path) -> Iterator[Answer]:
    if not bf16_of_cpu():
        return
    for name, size in NETWORKS.items():
        model = timm.create_model(name, num_classes=14).to(memory_format=torch.channels_last)
        for what, make in (("training", training_step), ("prediction", prediction)):
            step = make(model, torch.randn(IMAGES, 3, size, size))
            bf16, fp32 = alternate(timed(in_bf16(step)), timed(step), ROUNDS)
            question = f"{what}, {name}, {size} px, bf16"
            yield Answer(question, "images/s", "fp32", IMAGES / bf16, IMAGES / fp32)
    yield from changes(folder)


def training_step(model: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """A step of AdamW; autocast is for the forward pass alone, as in a training."""
    optimizer = torch.optim.AdamW(model.train().parameters())

    def step() -> None:
        loss = model(images).float().square().mean()
        with torch.autocast("cpu", enabled=False):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def prediction(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A forward pass without gradient."""
    return torch.no_grad()(lambda: model.eval()(images))


def in_bf16(step: Callable[[], object]) -> Callable[[], None]:
    """`step` under autocast."""

    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step()

    return run


def changes(folder: Path) -> Iterator[Answer]:
    """Change of the probabilities of one model, and of its macro AUROC, on all images of a set."""
    data, out = image_set(folder, "nih1000", images=300), folder / "out"
    head = ["--freeze_backbone", "--epochs", "5", "--run_folds", "1", "--img_size", "160"]
    if real := real_data():
        weights = real.parent / "weights" / "tf_efficientnet_lite0_in1k.safetensors"
        head += ["--model", "tf_efficientnet_lite0", "--pretrained", "--weights_file", str(weights)]
    output_of(*training(data, out, *head))
    ensemble = Ensemble.load(ModelsConfig(checkpoints=(next(out.glob("*_fold1.safetensors")),)))
    images, found = find_images(data / "images", None), []
    for precision in ("bf16-mixed", "32-true"):
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        csv = folder / f"{precision}.csv"
        with redirect_stdout(StringIO()):
            predictor = Predictor(fabric, ensemble, MergeConfig())
            predict_to_csv(predictor, images, csv, OutputOptions(), batch_size=32, workers=0)
        found.append(pd.read_csv(csv, index_col=0))
    change = (found[0] - found[1]).abs().to_numpy()
    yield Answer("bf16: largest change of a probability", "", "mean", change.max(), change.mean())
    names = list(ensemble.class_names)
    labels = pd.read_csv(data / "train.csv", index_col=0).loc[found[0].index, names]
    bf16, fp32 = (evaluate(labels, p, names, resamples=0).summary["mAUROC"] for p in found)
    yield Answer("bf16: macro AUROC", "", "fp32", float(bf16), float(fp32), floor=0.99)
