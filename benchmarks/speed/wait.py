"""Does training with two workers wait for its images? A minute on two cores.

The preset `small` of standard_head trains on a pack for an epoch, by its own train.py, and the time
in which it asks for the next batch is held against all of the time from its first batch on.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.runner import Answer, real_data
from benchmarks.speed.memory import make_pack
from core.data.phantom.dataset import make_phantom
from methods.standard_head.config import small

WORKERS = 2
LIMIT = 5  # %

# runs a train.py, and says for which share of its updates' time it waited
_TRAIN = """
import runpy, sys, time
from core.data.loading.fold_data import FoldData

training = FoldData.training

def timed(self, *arguments):
    batches = training(self, *arguments)
    yield next(batches)
    began, waited = time.perf_counter(), 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        waited += time.perf_counter() - asked
        print("waited:", waited / (time.perf_counter() - began))
        yield batch

FoldData.training = timed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def answers() -> Iterator[Answer]:
    """The part of an epoch in which the training waits for its next batch, from a pack and not."""
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), real_data()
        if data is None:
            make_phantom(folder / "phantom", images=1000)
        source = folder / "phantom" if data is None else data / "nih1000"
        csv, images = source / "train.csv", source / "images"
        pack = make_pack(csv, images, small().loader.img_size, folder / "pack")
        packed, unpacked = (waited(folder, csv, where) for where in (pack, images))
    what = f"waiting for images, {WORKERS} workers on a pack"
    yield Answer(what, packed, "limit", LIMIT, "%", ceiling=1)
    yield Answer(what.replace("a pack", "files"), unpacked, "on a pack", packed, "%")


def waited(folder: Path, csv: Path, images: Path) -> float:
    """The share in %, in a folder where its run is kept."""
    command = [
        *(sys.executable, "-c", _TRAIN, "methods/standard_head/train.py", "--preset", "small"),
        *("--no-pretrained", "--train_csv", str(csv), "--train_dir", str(images), "--epochs", "1"),
        *("--out_dir", str(folder / "out"), "--overwrite", "--num_workers", str(WORKERS)),
        *("--warmup_epochs", "0", "--warmup_head_epochs", "0", "--run_folds", "1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shares = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("waited:")]
    return 100 * float(shares[-1])
