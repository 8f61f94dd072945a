"""Does training with two workers wait for its images? A minute on two cores.

The preset `small` of standard_head trains on a pack for an epoch, by its own train.py, and the time
in which it asks for the next batch is held against all of the time from its first batch on.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import image_set, make_pack
from benchmarks.runner import Answer, output_of
from methods.standard_head.config import small

WORKERS = 2
LIMIT = 5  # %

# runs a train.py, and prints for which share of its updates' time it waited
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
        folder = Path(name)
        source = image_set(folder, "nih1000", images=1000)
        pack = make_pack(source, small().loader.img_size, folder / "pack")
        csv = source / "train.csv"
        packed, unpacked = (waited(folder, csv, where) for where in (pack, source / "images"))
    what = f"waiting for images, {WORKERS} workers on"
    yield Answer.limited(f"{what} a pack", "%", packed, LIMIT)
    yield Answer(f"{what} files", "%", "on a pack", unpacked, packed)


def waited(folder: Path, csv: Path, images: Path) -> float:
    """The share in %, in a folder where its run is kept."""
    printed = output_of(
        *("-c", _TRAIN, "methods/standard_head/train.py", "--preset", "small", "--no-pretrained"),
        *("--train_csv", csv, "--train_dir", images, "--epochs", "1", "--run_folds", "1"),
        *("--out_dir", folder / "out", "--overwrite", "--num_workers", WORKERS),
        *("--warmup_epochs", "0", "--warmup_head_epochs", "0"),
    )
    shares = [line.split()[1] for line in printed.splitlines() if line.startswith("waited:")]
    return 100 * float(shares[-1])
