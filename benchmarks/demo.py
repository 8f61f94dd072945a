"""Train the three methods on procedural radiographs, merge them, and score all on other patients.

    python -m benchmarks.demo

Six to ten minutes on two cores, eight of processor time. Each command is printed before it runs;
all files go to `demo`. Expected macro AUROC over the ten classes with five positive patients: 0.85
merged, 0.83 csra_db_cas, 0.81 label_coupling, 0.83 standard_head.
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.runner import start
from core.errors import UserError

FOLDER = Path("demo")
TRAINING = [
    *("--preset", "small", "--model", "resnet10t", "--no-pretrained", "--img_size", "64"),
    *("--train_csv", "demo/data/train.csv", "--train_dir", "demo/data/images"),
    *("--folds", "5", "--run_folds", "1", "--epochs", "8"),
]
# from random weights: high rates and no head phase
RATES = ["--warmup_head_epochs", "0", "--backbone_lr", "3e-3", "--head_lr", "3e-3"]
METHODS = {
    "standard_head": RATES,
    # class-aware sampling costs more than it gives on so few images
    "csra_db_cas": [*RATES, "--sampler", "uniform", "--loss", "bce"],
    "label_coupling": ["--lr", "3e-3"],
}
TEST = ["--test_csv", "demo/data/test.csv", "--image_dir", "demo/data/images", "--overwrite"]


def main() -> None:
    """Run the steps; a failing step ends the demo with its exit code."""
    script = Path("methods/standard_head/train.py")
    if not script.is_file():
        raise UserError(f"{script} is missing: run this in the project's folder")
    # Ctrl-C stops the running step, which then fails
    signal.signal(signal.SIGINT, lambda *_: None)
    for words in steps():
        print(f"\npython {shlex.join(words)}", flush=True)
        with subprocess.Popen([sys.executable, *words]) as step:
            code = step.wait()
        if code:
            sys.exit(code if code > 0 else 128 - code)


def steps() -> Iterator[list[str]]:
    """Arguments of `python` for each step, made after the steps before it have run."""
    yield ["-m", "core.data.phantom", "demo/data", "--images", "1600"]
    for method, flags in METHODS.items():
        yield [f"methods/{method}/train.py", *TRAINING, *flags, "--out_dir", f"demo/{method}"]
    singles = [f"demo/{method}.csv" for method in METHODS]
    for method, single in zip(METHODS, singles, strict=True):
        yield infer(method, single, "--no-use_tta")
    yield infer("*", "demo/merged.csv", "--use_tta", "--tta_config", "flip_scale")
    yield [
        *("-m", "ensemble.evaluate", "--predictions", "demo/merged.csv", *singles),
        *("--labels", "demo/data/test_labels.csv", "--train_csv", "demo/data/train.csv"),
        *("--output", "demo/scores", "--overwrite"),
    ]


def infer(method: str, output: str, *flags: str) -> list[str]:
    """Arguments to predict the test images with the checkpoint of a method, or of all ("*")."""
    found = sorted(path.as_posix() for path in FOLDER.glob(f"{method}/*_fold1.safetensors"))
    return ["-m", "ensemble.infer", "--checkpoints", *found, *TEST, *flags, "--output", output]


if __name__ == "__main__":
    start(main, __doc__)
