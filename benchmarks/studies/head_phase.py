"""What does a cached head phase cost, and save?

    python -m benchmarks.studies.head_phase [method ...]

Ten head-only epochs of a method on folds of nih1000 at 160 px, with ImageNet weights of
tf_efficientnet_lite0 and nothing after them: all computed anew, and with the features of a few
augmented passes kept. mAP and macro AUROC of what each run keeps, against the exact phase on the
same resamples of patients, and the processor's seconds of the phase. Ten to twenty minutes a method
on one core. Run folders that are there are not trained again.

Expected (two CPU cores): the table in README.md.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.runner import imagenet_weights
from benchmarks.studies.real_runs import TOO_FEW, nih1000, scores
from core.config.command_line import run

EPOCHS = 10
FOLDS = {"standard_head": ("1",), "csra_db_cas": ("1", "2")}
VIEWS = {"standard_head": (1, 4), "csra_db_cas": (2, 4, 6)}
TOOK = "seconds.txt"

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


def main() -> None:
    """Train what is not trained yet, and print one row a setting."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("methods", nargs="*", choices=[*VIEWS, []], metavar="method")
    methods = parser.parse_args().methods or VIEWS
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    rows = []
    for method in methods:
        base = Path(f"outputs/head_phase/{method}_exact")
        settings = {base: ["--head_phase", "exact"]}
        for views in VIEWS[method]:
            out = base.with_name(f"{method}_{views}")
            settings[out] = ["--head_phase", "cached", "--head_views", str(views)]
        for out, flags in settings.items():
            seconds = train(method, out, flags)
            told = " ".join(flags)
            rows.append((method, told, *scores(out, base, TOO_FEW)[1:], f"{seconds:.0f}"))
    columns = ["method", "flags", "mAUROC", "mAP", "less exact's mAUROC", "mAP", "CPU s a fold"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False))


def train(method: str, out: Path, flags: list[str]) -> float:
    """Train the head of each fold, unless that is done; the processor's seconds a fold."""
    # beside the run folder, which holds nothing but a run
    note = out.with_name(f"{out.name}_{TOOK}")
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        data = nih1000()
        command = [
            *(sys.executable, "-c", _TRAIN, str(note), f"methods/{method}/train.py", *flags),
            *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "160"),
            *("--batch_size", "16", "--monitor", "mAUROC", "--num_workers", "0"),
            *("--warmup_head_epochs", str(EPOCHS), "--run_folds", *FOLDS[method], "--seed", "0"),
            *("--train_csv", str(data / "train.csv"), "--train_dir", str(data / "images")),
            *("--weights_file", str(imagenet_weights()), "--out_dir", str(out), "--overwrite"),
        ]
        # threads that wait for each other would count
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return float(note.read_text()) / len(FOLDS[method])


if __name__ == "__main__":
    run(main)
