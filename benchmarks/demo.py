"""Train the three methods on procedural radiographs, merge them, and score all on other patients.

    python -m benchmarks.demo

Six to ten minutes on two cores. Each command is printed before it runs; all files go to `demo`.
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
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
TRAINING = [
    *("--preset", "small", "--no-pretrained", "--img_size", "64"),
    *("--train_csv", "demo/data/train.csv", "--train_dir", "demo/data/images"),
    *("--folds", "5", "--run_folds", "1", "--epochs", "4"),
]
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
    for method in METHODS:
        rate = "--lr" if method == "label_coupling" else "--backbone_lr"
        words = (*TRAINING, rate, "1e-3", "--out_dir", f"demo/{method}")
        yield [f"methods/{method}/train.py", *words]
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
