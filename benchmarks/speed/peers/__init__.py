"""Whole processes against those that a reader would write. About 20 minutes on two cores.

Three epochs of `label_coupling` against Lightning's Trainer and against timm's parts, then
`ensemble.infer` against a plain loop over the same checkpoints and copies. The commands run in
turn, on the same images of 1,024 pixels, with the same network, batches, passes and one loader
worker. Ours also keep a moving average, resume states, intervals and a report.

Needs the extra `peers`; runs only when it is named.
"""

import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.images import image_set
from benchmarks.runner import Answer
from benchmarks.speed.peers.cost import Cost, cost_of
from core.errors import UserError

HERE = Path(__file__).parent
MODEL, SIZE, EPOCHS, ROUNDS = "tf_efficientnet_lite0", 160, 3, 2
IMAGES, HELD_OUT = 600, 200
CEILING, CEILING_PACKED = 1.0, 0.9
LIGHTNING, TIMM = "Lightning's Trainer", "timm's parts"
OURS, PACKED = "label_coupling", "label_coupling, packed"
# by attribute of a cost: what it is, and its unit
MEASURES = {
    "processor": ("processor time", "s"),
    "wall": ("wall time", "s"),
    "first_step": ("to the first step", "s"),
    "images_per_second": ("training", "images/s"),
    "megabytes": ("peak memory", "MB"),
}
# a train.py that prints when it takes its first batch
_TRAIN = """
import runpy, sys
from core.training.step_monitor import StepMonitor

remember = StepMonitor.remember

def announce(self, update, rows):
    if not update:
        print("first step", flush=True)
    remember(self, update, rows)

StepMonitor.remember = announce
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def check() -> None:
    """Raise UserError without Lightning's Trainer."""
    if find_spec("pytorch_lightning") is None:
        raise UserError(
            "the peers need a missing package: pip install -c constraints.txt -e '.[peers]'"
        )


def answers(folder: Path) -> Iterator[Answer]:
    data = draw(folder / "data")
    yield from of_training(data, folder)
    yield from of_prediction(data, folder)


def draw(folder: Path) -> Path:
    """Images of 1,024 pixels, each under several names, with tables of both parts and of all."""
    source = image_set(folder / "source", "nih1024", images=60, size=1024)
    labels = pd.read_csv(source / "train.csv", index_col=0).drop(columns="PatientID")
    (folder / "images").mkdir(parents=True)
    # the same image in both parts is refused
    apart = len(labels) * IMAGES // (IMAGES + HELD_OUT)
    repeated = np.arange(IMAGES) % apart, apart + np.arange(HELD_OUT) % (len(labels) - apart)
    rows = labels.iloc[np.concatenate(repeated)].copy()
    names = [f"{number:04d}.png" for number in range(len(rows))]
    for original, name in zip(rows.index, names, strict=True):
        shutil.copy(source / "images" / str(original), folder / "images" / name)
    rows.index = pd.Index(names, name="ImageID")
    rows.iloc[:IMAGES].to_csv(folder / "train.csv")
    rows.iloc[IMAGES:].to_csv(folder / "val.csv")
    rows.to_csv(folder / "all.csv")
    return folder


def of_training(data: Path, folder: Path) -> Iterator[Answer]:
    """Rows of a training, from files and from a pack."""
    pack, images = folder / "pack", data / "images"
    table = ("--train_csv", data / "all.csv", "--train_dir", images)
    cost_of(["-m", "core.data.pack", *table, "--size", SIZE, "--out", pack])

    def ours(source: Path, out: str) -> list[object]:
        return [
            *("-c", _TRAIN, "methods/label_coupling/train.py", "--preset", "small"),
            *(
                "--no-pretrained",
                "--model",
                MODEL,
                "--img_size",
                SIZE,
                "--epochs",
                EPOCHS,
                "--no-tta",
            ),
            *("--train_csv", data / "train.csv", "--val_csv", data / "val.csv"),
            *("--train_dir", source, "--num_workers", 1, "--out_dir", folder / out, "--overwrite"),
        ]

    costs = in_turn(
        {
            OURS: ours(images, "ours"),
            LIGHTNING: [HERE / "lightning_trainer.py", data, folder / "lightning"],
            PACKED: ours(pack, "packed"),
            TIMM: [HERE / "timm_train.py", data, folder / "timm"],
        }
    )
    for peer in (LIGHTNING, TIMM):
        yield from compare(costs, OURS, peer, CEILING, [*MEASURES])
        yield from compare(costs, PACKED, peer, CEILING_PACKED, ["processor"])


def of_prediction(data: Path, folder: Path) -> Iterator[Answer]:
    """Rows of a prediction by three checkpoints."""
    trained, images = next((folder / "ours").glob("*_fold1.safetensors")), data / "images"
    checkpoints = [shutil.copy(trained, folder / f"{place}.safetensors") for place in range(3)]
    csvs = folder / "ours.csv", folder / "plain.csv"
    words = ("--checkpoints", *checkpoints, "--image_dir", images, "--num_workers", 1)
    ours, plain = "ensemble.infer", "plain loop"
    costs = in_turn(
        {
            ours: ["-m", "ensemble.infer", *words, "--overwrite", "--output", csvs[0]],
            plain: [HERE / "plain_infer.py", images, csvs[1], *checkpoints],
        }
    )
    yield from compare(costs, ours, plain, CEILING, ["processor", "wall", "megabytes"])
    found, expected = (pd.read_csv(csv, index_col=0) for csv in csvs)
    largest = (found - expected).abs().to_numpy().max()
    # Pillow's interpolation differs from ours
    yield Answer.limited(f"{ours}: largest difference", "", float(largest), 0.1)


def in_turn(commands: Mapping[str, Sequence[object]]) -> dict[str, list[Cost]]:
    """Costs of each command in ROUNDS rounds (A B A B)."""
    rounds = [{name: cost_of(words) for name, words in commands.items()} for _ in range(ROUNDS)]
    return {name: [costs[name] for costs in rounds] for name in commands}


def compare(
    costs: Mapping[str, Sequence[Cost]],
    ours: str,
    peer: str,
    ceiling: float,
    measures: Sequence[str],
) -> Iterator[Answer]:
    """A row for each measure, of medians over the rounds; processor time has the `ceiling`."""
    for name in measures:
        what, unit = MEASURES[name]
        measured, reference = (
            statistics.median(getattr(cost, name) for cost in costs[side]) for side in (ours, peer)
        )
        bound = ceiling if name == "processor" else None
        yield Answer(f"{ours}: {what}", unit, peer, measured, reference, ceiling=bound)
