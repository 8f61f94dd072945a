"""Commands as processes of their own that start in no time and end at a chosen moment.

Imports everything once, then forks for each line of standard input, a JSON object: `module`, the
command's; `arguments`; `folder`, where all that it writes lies; `output`, a file for what it
prints; `moment`, [kind, at] or null; `signal`, what it gets at that moment, and `tree`, whether all
processes below it get that too. "seconds" after its start this program sends it. The command itself
sends it after number `at` of its updates ("update"), halves of an evaluation ("evaluation"), new
rows of metrics and timing ("row"), or of deletions and all steps with its files ("deletion",
"file"). {"resume": pid} lets one go on that was stopped.

The answer, one line, says how it ended. For one that came to its end, `output` with the ending
.json counts its moments and names what it imported that should have been here before.
"""

import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import core.data
import core.models.checkpoint
import core.runs.log
import core.training.batch_source
import core.training.fold_record
import core.training.frozen_backbone
from core.config.command_line import run
from tests.helpers.faults.preloaded_modules import command_module, import_all
from tests.helpers.training.small_run import draw_nothing

draw_nothing()

# each is counted when it has happened: a file that is opened is still empty, and so on
PLACES: dict[str, list[tuple[Any, str]]] = {
    "update": [(core.runs.log.FoldLog, "advance")],
    "evaluation": [
        *(
            (core.training.batch_source, "predict"),
            (core.training.frozen_backbone.FrozenBackbone, "predict"),
        ),
        (core.training.fold_record, "score_epoch"),
    ],
    "deletion": [(Path, "unlink")],
    "row": [(core.runs.log, "append_row")],
    "file": [
        *((Path, name) for name in ("touch", "open", "chmod", "replace", "unlink", "rmdir")),
        *(
            (core.models.checkpoint, "save_file"),
            (os, "fsync"),
            (core.training.fold_record, "cut_back"),
        ),
    ],
}


def serve() -> None:
    """Answer requests until standard input ends; what is still there then is ended."""
    # or else each fork's garbage collector walks through, and copies, all that was imported
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
                code = command(request)
                sys.stdout.flush()
                sys.stderr.flush()
                # to take the interpreter apart costs half a second
                os._exit(code)
            with suppress(OSError):
                # here too, as either may be the first
                os.setpgid(pid, pid)
            running.add(pid)
            kind, at = request["moment"] or ("", 0)
            if kind == "seconds" and not ends_within(pid, at):
                send(pid, request)
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


def ends_within(pid: int, seconds: float) -> bool:
    """Wait as long, or until a child ends if that is sooner."""
    watched = os.pidfd_open(pid)
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def send(pid: int, request: dict[str, Any]) -> None:
    """The signal of a request, to one command."""
    (os.killpg if request["tree"] else os.kill)(pid, request["signal"])


def command(request: dict[str, Any]) -> int:
    """One command, in the forked process; its exit code."""
    # a group of its own, which all processes below it share
    os.setpgid(0, 0)
    output = Path(request["output"])
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    counts: Counter[str] = Counter()
    kind, at = request["moment"] or ("", 0)

    def count(passed: str) -> None:
        counts[passed] += 1
        if passed == kind and counts[passed] == at:
            send(os.getpid(), request)

    folder = Path(request["folder"])
    for name, places in PLACES.items():
        for owner, function in places:
            setattr(owner, function, counted(getattr(owner, function), name, folder, count))
    before = set(sys.modules)
    sys.argv = [f"{request['module'].replace('.', '/')}.py", *request["arguments"]]
    module = command_module(request["module"])
    # processes that it starts anew import the main module of this one
    sys.modules["__main__"] = module
    try:
        run(module.main)
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
    import_all()
    serve()
