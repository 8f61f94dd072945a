"""What does a cached head phase cost, and save?

    python -m benchmarks.studies.head_phase [method ...]

Ten head-only epochs of a method on folds of nih1000 at 160 px, with ImageNet weights of
tf_efficientnet_lite0 and nothing after them: all computed again in each epoch, and with the
features of a few augmented passes kept. mAP and macro AUROC of what each run keeps, against the
exact phase on the same resamples of patients, and the processor's seconds of the phase. Ten to
twenty minutes a method on one core. Run folders that are there are not trained again.

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

# runs a train.py without the phase after the head's, and notes the processor's seconds of the rest
_TRAIN = """
import runpy, sys, time
from pathlib import Path
from core.training import optimizer as optim
from core.training.loop import FoldTrainer

both, whole = optim.two_phases, FoldTrainer.fit
optim.two_phases = lambda settings: both(settings)[:1]
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
            print(f"{out.name}: {seconds:.0f} s of the processor a fold")
        runs.score_out_of_fold(list(settings), runs.TOO_FEW, base.with_name(method))


def train(method: str, out: Path, flags: Sequence[object]) -> float:
    """Train the head of each fold, unless that is done; the processor's seconds a fold."""
    # beside the run folder, which holds nothing but a run
    note = out.with_name(f"{out.name}_seconds.txt")
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        # threads that wait for each other would count
        os.environ["OMP_NUM_THREADS"] = "1"
        runs.train(
            method,
            out,
            *(*flags, "--preset", "small", "--model", "tf_efficientnet_lite0", "--seed", "0"),
            *("--img_size", "160", "--batch_size", "16", "--monitor", "mAUROC", "--overwrite"),
            *("--num_workers", "0", "--warmup_head_epochs", EPOCHS, "--run_folds", *FOLDS[method]),
            prefix=("-c", _TRAIN, note),
        )
    return float(note.read_text()) / len(FOLDS[method])


if __name__ == "__main__":
    start(main, __doc__, VIEWS)
