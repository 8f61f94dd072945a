"""What is launched: a small training and a prediction, and whether their results are whole."""

from pathlib import Path

import pandas as pd

from core.models.checkpoint import load_tensors
from tests.helpers.training.small_run import MODEL, flags


def training(data: Path, out: Path, *more: object) -> list[str]:
    """Two epochs and one of the head, of one fold."""
    options = ["--run_folds", 1, "--labels", "Effusion,Normal", "--save_minutes", 1e-9]
    return flags(data, out, "--batch_size", 4, *options, *more)


def predicting(data: Path, trained: Path, output: Path, *more: object) -> list[object]:
    weights = trained / f"{MODEL}_fold1.safetensors"
    options = ["--image_dir", data / "images", "--test_csv", data / "train.csv", "--no-use_tta"]
    options += ["--batch_size", 2, "--num_workers", 0, "--output", output]
    return ["--checkpoints", weights, *options, *more]


def assert_complete(out: Path, epochs: int = 3) -> None:
    """Each validation image of the fold once, with probabilities."""
    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv", index_col="ImageID")
    folds = pd.read_csv(out / "folds.csv")
    assert sorted(predicted.index) == sorted(folds.loc[folds["fold"] == 1, "ImageID"])
    assert predicted.map(lambda p: 0 < p < 1).all(axis=None)
    assert pd.read_csv(out / "metrics.csv")["epoch"].tolist() == [*range(1, epochs + 1)]


def differing(ours: Path, theirs: Path) -> set[str]:
    """The names of files of one fold that are not the same, bit for bit."""
    ends = [".safetensors", "_val.csv"]
    names = {"metrics.csv", "folds.csv", "config.json", *(f"{MODEL}_fold1{end}" for end in ends)}
    return {name for name in names if content(ours / name) != content(theirs / name)}


def content(path: Path) -> object:
    """Bytes; of a checkpoint, whose header has no fixed order, what its checksum is made of."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    tensors, facts = load_tensors(path)
    return facts, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
