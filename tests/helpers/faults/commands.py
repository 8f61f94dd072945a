"""Commands to be interrupted: arguments and output folders of small runs."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from core.data.phantom.dataset import make_phantom
from tests.helpers.faults.trials import Command
from tests.helpers.training.small_run import MODEL, PARTS, flags


def training(data: Path, out: Path, *more: object, method: str = "standard_head") -> list[str]:
    """One fold of two epochs and a head epoch; its state is saved at each update."""
    # few labels: the report's pictures are what takes long
    options = ["--run_folds", 1, "--labels", "Effusion,Normal", "--save_minutes", 1e-9]
    return flags(data, out, "--batch_size", 4, *PARTS[method], *options, *more)


def training_of(method: str, data: Path, folder: Path, *more: object) -> Command:
    """The same training of a given method; label_coupling also predicts."""
    words = training(data, folder / "out", *more, method=method)
    if method == "label_coupling":
        words += ["--test_csv", str(data / "test.csv"), "--out_csv", str(folder / "test.csv")]
    return Command(f"training ({method})", f"methods.{method}.train", words, folder)


def predicting(data: Path, trained: Path, output: Path, *more: object) -> list[str]:
    """Predictions of that training's fold for its images, in blocks of 8."""
    csv = ["--test_csv", data / "train.csv"]
    return _predicting([trained / f"{MODEL}_fold1.safetensors"], data, output, *csv, *more)


def predicting_of(checkpoints: list[Path], data: Path, folder: Path, *more: object) -> Command:
    """Predictions of some models for all images of `data`, in blocks of 8."""
    words = _predicting(checkpoints, data, folder / "p.csv", *more)
    return Command("predicting (ensemble.infer)", "ensemble.infer", words, folder)


def _predicting(checkpoints: list[Path], data: Path, output: Path, *more: object) -> list[str]:
    words = ["--checkpoints", *checkpoints, "--image_dir", data / "images", "--no-use_tta"]
    words += ["--batch_size", 2, "--num_workers", 0, *more, "--output", output]
    return [str(word) for word in words]


def packing(images: Path, folder: Path, size: int, *more: object) -> Command:
    """A pack of all images of a folder."""
    words = ["--train_dir", images, "--size", size, "--num_workers", 1, *more]
    words += ["--out", folder / "pack"]
    return Command("packing (core.data.pack)", "core.data.pack", [*map(str, words)], folder)


def slow_images(folder: Path) -> Path:
    """Thirty links to one image of noise: a packer of size 1024 makes 15 blocks of them."""
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200), dtype=np.uint8)
    folder.mkdir()
    (folder / "000.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    for number in range(1, 30):
        os.link(folder / "000.png", folder / f"{number:03}.png")
    return folder


# what writes beside a training, on the small disk: {data} is a phantom with predictions of its test
# images, {run} the folder of one fold that was trained on it, {coupled} that of label_coupling,
# {work} where to write
OTHERS = {
    "ensemble.infer": "--checkpoints {run}/{model}_fold1.safetensors --test_csv {data}/test.csv "
    "--image_dir {data}/images --batch_size 4 --num_workers 0 --output {work}/p.csv",
    "core.data.pack": "--train_dir {data}/images --size 32 --num_workers 1 --out {work}/pack",
    "core.data.holdout": "--train_csv {data}/train.csv --output {work}/holdout",
    "core.data.phantom": "{work}/phantom --images 20 --size 32",
    "ensemble.evaluate": "--predictions {run}/{model}_fold1_val.csv --labels {data}/train.csv "
    "--common --output {work}/scores",
    "ensemble.choose": "--runs {run} --common --folds 2 --output {work}/ensemble.json",
    "ensemble.calibrate": "--predictions {data}/predicted.csv --labels {data}/test_labels.csv "
    "--folds 2 --output {work}/calibration.json",
    "ensemble.average": "--checkpoints {run}/{model}_fold1.safetensors "
    "{run}/{model}_fold1.safetensors --train_csv {data}/train.csv --image_dir {data}/images "
    "--num_workers 0 --output {work}/average.safetensors",
    "methods.label_coupling.couplings": "{coupled}/{model}_fold1.safetensors --out_dir {work}/c",
}


def disk_command(name: str, folder: Path, **places: Path) -> Command:
    """One of OTHERS, or a training of one fold: two head epochs (cached features), one of all."""
    if name in OTHERS:
        text = OTHERS[name].format(model=MODEL, work=folder, **{"coupled": ""} | places)
        return Command(name, name, text.split(), folder)
    words = flags(places["data"], folder / "out", "--run_folds", 1, "--epochs", 1, "--tensorboard")
    words += ["--labels", "Effusion,Normal", *PARTS[name]]
    if name == "label_coupling":
        words += ["--test_csv", f"{places['data']}/test.csv", "--out_csv", f"{folder}/test.csv"]
    else:
        words += ["--warmup_head_epochs", "2", "--head_views", "1"]
    return Command(name, f"methods.{name}.train", words, folder)


def data_with_predictions(folder: Path) -> Path:
    """A phantom with predictions of its test images."""
    make_phantom(folder, images=32, size=32, seed=3)
    labels = pd.read_csv(folder / "test_labels.csv").drop(columns="PatientID")
    classes = labels.columns[1:]
    labels[classes] = 0.2 + 0.5 * labels[classes]
    labels.to_csv(folder / "predicted.csv", index=False)
    return folder


def run_of_many(run: Path, data: Path, made: Path) -> Path:
    """Run folder for the phantom's test images, which have more patients."""
    shutil.copytree(run, made)
    # its labels are those of --train_csv, as in a run of before labels.csv
    (made / "labels.csv").unlink()
    settings = json.loads((made / "config.json").read_text())
    settings["train_csv"] = [str(data / "test_labels.csv")]
    (made / "config.json").write_text(json.dumps(settings))
    predicted = pd.read_csv(data / "predicted.csv")[["ImageID", "Effusion", "Normal"]]
    predicted.to_csv(made / f"{MODEL}_fold1_val.csv", index=False)
    return made


def assert_complete(out: Path, epochs: int = 3) -> None:
    """Each validation image of the fold once, with probabilities."""
    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv", index_col="ImageID")
    folds = pd.read_csv(out / "folds.csv")
    assert sorted(predicted.index) == sorted(folds.loc[folds["fold"] == 1, "ImageID"])
    assert predicted.map(lambda p: 0 < p < 1).all(axis=None)
    assert pd.read_csv(out / "metrics.csv")["epoch"].tolist() == [*range(1, epochs + 1)]
