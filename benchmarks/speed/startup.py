"""Time of --help, and until the first training step. A minute on two cores."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.images import training
from benchmarks.runner import Answer, medians, output_of, seconds
from core.data.phantom.dataset import make_phantom

COMMANDS = (
    "methods/standard_head/train.py",
    "methods/csra_db_cas/train.py",
    "methods/label_coupling/train.py",
    *("methods.label_coupling.couplings", "core.data.phantom", "core.data.pack"),
    *("ensemble.infer", "ensemble.choose", "ensemble.calibrate", "ensemble.evaluate"),
    "ensemble.average",
    *("core.doctor", "benchmarks"),
)

# ends a training after its first batch, and prints the imported modules
_FIRST_STEP = """
import runpy, sys
from core.training.step_monitor import StepMonitor

def stop(*_):
    # without aliases of modules
    whole = [name for name, module in sys.modules.items()
             if getattr(module, "__spec__", None) and module.__spec__.name == name]
    print(" ".join(["imported:", *whole]), flush=True)
    # the workers end too
    raise SystemExit

StepMonitor.remember = stop
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print("imported:", flush=True)
"""


def answers(folder: Path) -> Iterator[Answer]:
    for command in COMMANDS:
        words = [command] if command.endswith(".py") else ["-m", command]
        took = seconds(partial(output_of, *words, "--help"), repeats=3)
        yield Answer.limited(f"{command} --help", "s", took, 0.6)
    yield first_step(folder)


def first_step(folder: Path) -> Answer:
    """Seconds until the first batch, minus those of importing the same packages."""
    make_phantom(folder / "data", images=200, size=96)
    command = ["-c", _FIRST_STEP, *training(folder / "data", folder / "out", "--overwrite")]
    ours = ("core", "methods", "ensemble", "benchmarks", "__m")
    names = [name for name in until_imported(command)[1] if not name.startswith(ours)]
    works = {
        "training": lambda: until_imported(command)[0],
        "packages": lambda: until_imported(["-c", _IMPORTS, *names])[0],
    }
    took = medians(works, repeats=3)
    beyond = took["training"] - took["packages"]
    return Answer.limited("train.py to its first step, beyond imports", "s", beyond, 1.5)


def until_imported(words: Sequence[object]) -> tuple[float, list[str]]:
    """Seconds until Python with these arguments prints the imported modules, and their names."""
    began = time.perf_counter()
    command = [sys.executable, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith(b"imported:"):
                took = time.perf_counter() - began
                run.communicate()
                return took, line.decode().split()[1:]
        raise RuntimeError(f"{words[2]} failed: {run.communicate()[1][-2000:].decode()}")
