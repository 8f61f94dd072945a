"""Runs of train.py as processes of their own that start in no time and end at a chosen moment.

`forks.py METHOD...` imports everything once, then forks for each line of standard input, a JSON
object: `method`; `arguments` of its train.py; `output`, a file for what is printed; `moment`,
[kind, at] or null; `signal`, what the run gets at that moment. "seconds" after its start this
program sends it. The run itself sends it after number `at` of its updates ("update"), halves of an
evaluation ("evaluation"), new rows of metrics and timing ("row"), or of deletions and all steps
with files of its folder ("deletion", "file"). {"resume": pid} lets a run go on that was stopped.

The answer, one line, says how the run ended. For one that came to its end, `output` with the ending
.json counts its moments and names what it imported that should have been here before.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# what train.main imports late is to be there before the first fork
import core.backbone
import core.checkpoint
import core.closing
import core.data.fold
import core.head_phase
import core.loop
import core.losses
import core.report
import core.runlog
import core.runtime
import methods
import methods.initial
from core.cli import run

# pictures are looked at elsewhere, and take a third of so short a run
core.report.DOTS_PER_INCH = 20

# each is counted when it has happened: a file that is opened is still empty, and so on
PLACES: dict[str, list[tuple[Any, str]]] = {
    "update": [(core.runlog.FoldLog, "advance")],
    "evaluation": [
        *((core.loop, "predict"), (core.head_phase.HeadPhase, "predict")),
        (core.loop, "score_epoch"),
    ],
    "deletion": [(Path, "unlink")],
    "row": [(core.runlog, "append_row")],
    "file": [
        *((Path, name) for name in ("touch", "open", "chmod", "replace", "unlink")),
        *((core.checkpoint, "save_file"), (os, "fsync"), (core.loop, "cut_back")),
    ],
}


def serve() -> None:
    """Answer requests until standard input ends; a run that is still there then is ended."""
    # or else each run's garbage collector walks through, and copies, all that was imported
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        if "resume" in request:
            pid = request["resume"]
            os.kill(pid, signal.SIGCONT)
        else:
            tasks = Path("/proc/self/task")
            assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "threads do not survive"
            pid = os.fork()
            if pid == 0:
                code = train(request)
                sys.stdout.flush()
                sys.stderr.flush()
                # to take the interpreter apart costs half a second
                os._exit(code)
            running.add(pid)
            kind, at = request["moment"] or ("", 0)
            if kind == "seconds":
                time.sleep(at)
                os.kill(pid, request["signal"])
        _, status = os.waitpid(pid, os.WUNTRACED)
        ended = {"pid": pid, "seconds": time.monotonic() - began}
        if os.WIFSTOPPED(status):
            ended |= {"stopped": True, "code": None}
        else:
            running.remove(pid)
            ended |= {"stopped": False, "code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(ended), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def import_method(name: str) -> None:
    """Import all modules of a method, those too that its train.main imports late."""
    for module in pkgutil.iter_modules([f"{methods.__path__[0]}/{name}"], f"methods.{name}."):
        importlib.import_module(module.name)


def train(request: dict[str, Any]) -> int:
    """One run, in the forked process; its exit code."""
    output = Path(request["output"])
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    counts: Counter[str] = Counter()
    kind, at = request["moment"] or ("", 0)

    def count(passed: str) -> None:
        counts[passed] += 1
        if passed == kind and counts[passed] == at:
            os.kill(os.getpid(), request["signal"])

    arguments = request["arguments"]
    folder = Path(arguments[arguments.index("--out_dir") + 1])
    for name, places in PLACES.items():
        for owner, function in places:
            setattr(owner, function, counted(getattr(owner, function), name, folder, count))
    method, before = request["method"], set(sys.modules)
    sys.argv = [f"methods/{method}/train.py", *arguments]
    try:
        run(importlib.import_module(f"methods.{method}.train").main)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except Exception:
        traceback.print_exc()
        return 1
    ours = ("core.", "methods.", "ensemble.")
    late = sorted(name for name in set(sys.modules) - before if name.startswith(ours))
    output.with_suffix(".json").write_text(json.dumps({"moments": counts, "late": late}))
    return 0


def counted(function: Callable, name: str, folder: Path, count: Callable[[str], None]) -> Callable:
    """`function`, with `count(name)` after each of its calls; of paths, of those in `folder`."""

    def call(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        if not isinstance(arguments[0], Path) or folder in arguments[0].parents:
            count(name)
        return result

    return call


if __name__ == "__main__":
    for name in sys.argv[1:]:
        import_method(name)
    serve()
