"""`infer_forks.py FOLDER MOMENTS ARGUMENT...`: ensemble.infer, killed and started again.

Imports everything once, then forks. A first run, undisturbed, counts its moments: every block that
it keeps, and every step with files. Then, for MOMENTS of them evenly spread, a run gets SIGKILL
there, and the same command is given again. Prints, as JSON, for each: the moment, how both ended,
whether the CSV's bytes are those of the first run, and what else is left beside it.
"""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# what main imports late is to be there before the first fork
import core.checkpoint
import core.runtime
from core.cli import run
from ensemble import infer, parts
from methods import method_names

PLACES: list[tuple[Any, str]] = [
    (parts.Parts, "write"),
    (core.checkpoint, "save_file"),
    *((Path, name) for name in ("touch", "replace", "unlink", "rmdir", "chmod")),
]


def forked(arguments: list[str], log: Path, moment: int | None) -> tuple[int, int]:
    """(exit code, moments) of a run, killed after number `moment` of them."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        passed = 0

        def after(function: Callable) -> Callable:
            def call(*given: Any, **named: Any) -> Any:
                nonlocal passed
                result = function(*given, **named)
                passed += 1
                if passed == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for owner, name in PLACES:
            setattr(owner, name, after(getattr(owner, name)))
        sys.argv = ["infer.py", *arguments]
        code = 0
        try:
            run(infer.main)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        os.write(writing, str(passed).encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        told = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(told or 0)


def main() -> None:
    folder, count, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    for method in method_names():
        importlib.import_module(f"methods.{method}.model")
    gc.collect()
    gc.freeze()
    first = folder / "undisturbed.csv"
    code, moments = forked([*arguments, "--output", str(first)], folder / "first.log", None)
    assert code == 0, (folder / "first.log").read_text()
    answers = []
    for moment in np.unique(np.linspace(1, moments, count).astype(int)).tolist():
        output = folder / f"killed{moment}" / "p.csv"
        command = [*arguments, "--output", str(output)]
        ends = [
            forked(command, folder / f"{moment}{turn}.log", at)[0]
            for turn, at in (("killed", moment), ("again", None))
        ]
        same = output.exists() and output.read_bytes() == first.read_bytes()
        left = sorted(path.name for path in output.parent.iterdir())
        answers.append({"moment": moment, "ends": ends, "same": same, "left": left})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
