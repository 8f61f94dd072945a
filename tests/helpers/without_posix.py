"""Imports, --help, packing and training without the POSIX modules that Windows lacks.

    python -m tests.helpers.without_posix FOLDER

FOLDER is empty. Prints the imported modules and each command's exit code, output and errors as
JSON. Run it from the root of the repository.
"""

import importlib
import io
import json
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

PACKAGES = ("core", "methods", "ensemble", "benchmarks")
MODULES = ("fcntl", "resource", "grp", "pwd", "termios")
SIGNALS = ("SIGUSR1", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGPIPE", "SIGKILL")
FUNCTIONS = (
    *("fork", "register_at_fork", "sched_getaffinity", "posix_fallocate", "pwrite", "geteuid"),
    *("O_NONBLOCK", "getuid", "killpg", "getpgid", "setsid"),
)
# On POSIX torch calls os.register_at_fork, and the others take such modules, when imported.
FIRST = ("torch", "filelock", "wandb", "mlflow")
# of an extra that may be missing
LEFT_OUT = ("benchmarks.speed.peers.lightning_trainer",)


def main() -> None:
    """Print the results as JSON."""
    for name in FIRST:
        importlib.import_module(name)
    take_away()
    modules = list(import_all())
    commands = [name for name in modules if is_command(name)]
    data, pack, out = (Path(sys.argv[1]) / name for name in ("data", "pack", "out"))
    images = ["--train_csv", data / "train.csv", "--train_dir", data / "images"]
    tiny = ["--preset", "small", "--model", "test_efficientnet", "--no-pretrained", "--epochs", 1]
    tiny += ["--folds", 2, "--run_folds", 1, "--batch_size", 8, "--num_workers", 0]
    calls: list[list[object]] = [[name, "--help"] for name in commands]
    calls += [
        ["core.data.phantom", data, "--images", 20, "--size", 32],
        ["core.data.pack", *images, "--size", 32, "--out", pack, "--num_workers", 1],
        ["methods.standard_head.train", *images, "--img_size", 32, *tiny, "--out_dir", out],
        ["core.doctor", "--run", out],
    ]
    answers = [[*map(str, words), *call(*map(str, words))] for words in calls]
    print(json.dumps({"modules": modules, "answers": answers}))


def take_away() -> None:
    """Remove the modules and functions that Windows lacks."""
    for name in MODULES:
        # an import of it raises ModuleNotFoundError
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in ((signal, SIGNALS), (os, FUNCTIONS)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    multiprocessing.set_start_method("spawn")
    multiprocessing.get_all_start_methods = lambda: ["spawn"]


def import_all() -> Iterator[str]:
    """The names of all modules, each once it is imported."""
    for package in PACKAGES:
        importlib.import_module(package)
        for module in pkgutil.walk_packages([package], f"{package}."):
            if module.name in LEFT_OUT:
                continue
            importlib.import_module(module.name)
            yield module.name


def is_command(module: str) -> bool:
    """Whether a module is run by its name."""
    file = sys.modules[module].__file__
    return file is not None and '__name__ == "__main__"' in Path(file).read_text("utf-8")


def call(module: str, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, run as `python -m module words`."""
    out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    sys.argv = [module, *words]
    code = 0
    with redirect_stdout(out), redirect_stderr(error), warnings.catch_warnings():
        # that the module was imported before
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    texts = []
    for stream in (out, error):
        stream.seek(0)
        texts.append(stream.read())
    return code, texts[0], texts[1]


if __name__ == "__main__":
    main()
