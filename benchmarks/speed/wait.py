"""Share of the training time that is spent waiting for images. A minute on two cores.

An epoch of standard_head's train.py with the preset `small` and two workers: the time waiting for
the next batch, as a share of the time since its first batch.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import image_set, make_pack, training
from benchmarks.runner import Answer, output_of
from methods.standard_head.config import small

WORKERS = 2
LIMIT = 5  # %

# runs a train.py, and prints the share of time that it waited
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
FLAGS = ("--epochs", "1", "--run_folds", "1", "--overwrite", "--warmup_epochs", "0")


def answers(folder: Path) -> Iterator[Answer]:
    data = image_set(folder, "nih1000", images=1000)
    pack = make_pack(data, small().loader.img_size, folder / "pack")
    shares = []
    for images in (pack, data / "images"):
        words = training(data, folder / "out", *FLAGS, "--num_workers", WORKERS, images=images)
        printed = output_of("-c", _TRAIN, *words).rpartition("waited: ")[2]
        shares.append(100 * float(printed.split()[0]))
    packed, unpacked = shares
    what = f"waiting for images, {WORKERS} workers on"
    yield Answer.limited(f"{what} a pack", "%", packed, LIMIT)
    yield Answer(f"{what} files", "%", "on a pack", unpacked, packed)
