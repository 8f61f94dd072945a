"""Settings of a run of seconds: two folds, one head epoch, two epochs."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cv2 import imencode

from core.config.command_line import parse
from core.config.values import flat

ROOT = Path(__file__).resolve().parents[3]
MODEL = "test_efficientnet"
# what is promised of the command line and of whole runs is tested for each of these
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
# parts that the preset `small` leaves out, so that they are tested
PARTS = {
    "standard_head": ("--warmup_head_epochs", "1", "--head", "mlp"),
    "csra_db_cas": ("--warmup_head_epochs", "1", "--sampler", "class_aware"),
    "label_coupling": ("--refiner",),
}


def script(method: str) -> str:
    """Path of the method's train.py from ROOT."""
    return f"methods/{method}/train.py"


def module(method: str, name: str) -> Any:
    """The module `name` of a method: config, model or train."""
    return importlib.import_module(f"methods.{method}.{name}")


def settings(
    *arguments: str, method: str = "standard_head", auto: str | None = None
) -> dict[str, Any]:
    """All settings of a command line by flag name."""
    presets = module(method, "config").PRESETS
    machine = None if auto is None else lambda: auto
    return flat(parse(presets, arguments=list(arguments), auto=machine))


def flags(data: Path, out: Path, *more: object) -> list[str]:
    """Flags of a run of a tiny network on the images of `data`, for any method."""
    return [
        *("--preset", "small", "--train_csv", str(data / "train.csv")),
        *("--train_dir", str(data / "images"), "--out_dir", str(out)),
        *("--model", MODEL, "--no-pretrained", "--img_size", "32", "--batch_size", "8"),
        *("--folds", "2", "--epochs", "2", "--num_workers", "0", "--log_every", "1"),
        *map(str, more),
    ]


def draw_nothing(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replace the pictures of reports by blank ones (drawing dominates so short a run)."""
    from core.report import figures
    from core.training import finish

    assert hasattr(finish, "draw_pictures")
    dot = imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
    blank = [
        figures.Picture(name, *heading, png=dot, wide=False)
        for name, heading in figures.HEADINGS.items()
    ]
    replace(finish, "draw_pictures", lambda *_: blank)


def contents(folder: Path) -> dict[str, bytes]:
    """Content of the reproducible files of a run."""
    names = ["metrics.csv", "folds.csv", "labels.csv", "config.json"]
    names += [f"{MODEL}_fold{fold}{end}" for fold in (1, 2) for end in (".safetensors", "_val.csv")]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
