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

from benchmarks.runner import no_flags
from core.config.command_line import run
from core.errors import UserError

FOLDER = Path("demo")
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
# the flag of the learning rate, where it is another
RATES = {"label_coupling": "--lr"}

DATA = [
    *("--preset", "small", "--no-pretrained", "--img_size", "64"),
    *("--train_csv", "demo/data/train.csv", "--train_dir", "demo/data/images"),
    *("--folds", "5", "--run_folds", "1"),
]
TEST = ["--test_csv", "demo/data/test.csv", "--image_dir", "demo/data/images", "--overwrite"]


def main() -> None:
    """Run the steps; the first one that fails ends the demo with its exit code."""
    no_flags(__doc__)
    if not Path(script(METHODS[0])).is_file():
        raise UserError(f"there is no {script(METHODS[0])} here: run this in the project's folder")
    # a step answers Ctrl-C, and ends as any that fails
    signal.signal(signal.SIGINT, lambda *_: None)
    for words in steps():
        print(f"\npython {shlex.join(words)}", flush=True)
        with subprocess.Popen([sys.executable, *words]) as step:
            code = step.wait()
        if code:
            sys.exit(code if code > 0 else 128 - code)


def steps() -> Iterator[list[str]]:
    """The words after `python` of each step, made once the steps before it have run."""
    yield ["-m", "core.data.phantom", "demo/data", "--images", "1600"]
    for method in METHODS:
        rate = RATES.get(method, "--backbone_lr")
        yield [
            *(script(method), *DATA, "--epochs", "4", rate, "1e-3"),
            *("--out_dir", f"demo/{method}"),
        ]
    for method in METHODS:
        yield infer(method, f"demo/{method}.csv", "--no-use_tta")
    yield infer("*", "demo/merged.csv", "--use_tta", "--tta_config", "flip_scale")
    singles = [f"demo/{method}.csv" for method in METHODS]
    yield [
        *("-m", "ensemble.evaluate", "--predictions", "demo/merged.csv", *singles),
        *("--labels", "demo/data/test_labels.csv", "--train_csv", "demo/data/train.csv"),
        *("--output", "demo/scores"),
    ]


def script(method: str) -> str:
    """The method's training script."""
    return f"methods/{method}/train.py"


def infer(method: str, output: str, *views: str) -> list[str]:
    """Predict the test images with the checkpoint of a method, or of all ("*")."""
    found = sorted(path.as_posix() for path in FOLDER.glob(f"{method}/*_fold1.safetensors"))
    return ["-m", "ensemble.infer", "--checkpoints", *found, *TEST, *views, "--output", output]


if __name__ == "__main__":
    run(main)
