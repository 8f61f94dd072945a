"""Cost and saving of a cached head phase.

    python -m benchmarks.studies.head_phase [method ...]

Ten head-only epochs of a method on folds of nih1000 at 160 px, with ImageNet weights of
tf_efficientnet_lite0 and no second phase: exact, and with cached features of a few augmented
passes. Compares mAP and macro AUROC with the exact phase on the same resamples of patients, and
the CPU seconds of the phase. Ten to twenty minutes a method on one core. Existing run folders are
not trained again.

Expected (two CPU cores): the table in docs/results.md.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

EPOCHS = 10
FOLDS = {"standard_head": ("1",), "csra_db_cas": ("1", "2")}
VIEWS = {"standard_head": (1, 4), "csra_db_cas": (2, 4, 6)}

# runs a train.py and writes the CPU seconds of its training
_TRAIN = """
import runpy, sys, time
from pathlib import Path
from core.training.loop import FoldTrainer

whole = FoldTrainer.fit
seconds = 0.0

def timed(self):
    global seconds
    began = time.process_time()
    whole(self)
    seconds += time.process_time() - began

FoldTrainer.fit = timed
note, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
Path(note).write_text(str(seconds))
"""


def main(methods: list[str]) -> None:
    for method in methods:
        base = runs.OUT / "head_phase" / f"{method}_exact"
        settings = {base: ["--head_phase", "exact"]} | {
            base.with_name(f"{method}_{views}"): ["--head_phase", "cached", "--head_views", views]
            for views in VIEWS[method]
        }
        for out, flags in settings.items():
            seconds = train(method, out, flags)
            print(f"{out.name}: {seconds:.0f} CPU seconds a fold")
        runs.score_out_of_fold(list(settings), runs.TOO_FEW, base.with_name(method))


def train(method: str, out: Path, flags: Sequence[object]) -> float:
    """Train the head of each fold, unless that is done; returns the CPU seconds a fold."""
    # beside the run folder, which contains only the run
    note = out.with_name(f"{out.name}_seconds.txt")
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        # spinning threads would count as CPU seconds
        os.environ["OMP_NUM_THREADS"] = "1"
        runs.train(
            method,
            out,
            *(*flags, "--preset", "small", "--model", "tf_efficientnet_lite0", "--seed", "0"),
            *("--img_size", "160", "--batch_size", "16", "--monitor", "mAUROC", "--overwrite"),
            *("--num_workers", "0", "--epochs", "0", "--warmup_head_epochs", EPOCHS),
            *("--run_folds", *FOLDS[method], *runs.PUBLISHED[method]),
            prefix=("-c", _TRAIN, note),
        )
    return float(note.read_text()) / len(FOLDS[method])


if __name__ == "__main__":
    start(main, __doc__, VIEWS)
