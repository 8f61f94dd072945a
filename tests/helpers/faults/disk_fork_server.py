"""Commands in processes that start in no time, whose disk fails at a chosen step.

`disk_fork_server.py FOLDER` imports everything once, then forks for each line of standard input, a
JSON object: `module`, whose `main` is called; its `arguments`; `folder`, whose steps are counted
(see disk_steps.py); `stdout` and `stderr`, files; `blow`, null or what happens at step `at`:
{"errno": name}: it fails, and all that would write after it too; with `once` that step alone;
{"fill": file}: this file takes all the room that is left on its disk; {"call": [[name, argument,
...], ...]}: functions of BLOWS. The answer: `code`, how the command ended, and the `steps` it took.

{"run": [word, ...]} runs a program here, where file systems may be mounted that others do not see.
"""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from core.config.command_line import run
from core.data.pack import workers as pack_decoding
from tests.helpers.faults.disk_steps import Step, Steps
from tests.helpers.faults.preloaded_modules import command_module, import_all
from tests.helpers.training.small_run import draw_nothing

# what a full disk refuses; it can still rename and delete
_WRITING = ("open", "write", "save", "mkdir", "posix_fallocate", "pwrite")


def serve() -> None:
    """Answer requests until standard input ends."""
    draw_nothing()
    decode_here()
    import_all()
    # or else each run's garbage collector walks through, and copies, all that was imported
    gc.collect()
    gc.freeze()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            done = subprocess.run(request["run"], capture_output=True, text=True, check=False)
            answer: dict[str, Any] = {"code": done.returncode, "told": done.stderr}
        else:
            answer = forked(request)
        print(json.dumps(answer), flush=True)


def decode_here() -> None:
    """Let a packer decode in threads: its processes would need seconds to start."""
    processes = "ProcessPoolExecutor"
    assert hasattr(pack_decoding, processes)
    setattr(pack_decoding, processes, lambda workers, *_, **__: ThreadPoolExecutor(workers))
    for name in ("ensure_running", "set_forkserver_preload"):
        setattr(forkserver, name, lambda *_: None)


def forked(request: dict[str, Any]) -> dict[str, Any]:
    """One command, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code, steps = command(request)
        with os.fdopen(writing, "w") as told:
            told.write(json.dumps(steps))
        # to take the interpreter apart costs half a second
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        steps = json.loads(stream.read() or "[]")
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "steps": steps}


def command(request: dict[str, Any]) -> tuple[int, list[Step]]:
    """Its exit code, and the steps that it took."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    blow = request["blow"] or {}

    def strike(number: int, step: Step) -> None:
        due = number == blow.get("at")
        if due and "fill" in blow:
            fill(Path(blow["fill"]))
        for name, *arguments in blow.get("call", ()) if due else ():
            BLOWS[name](*arguments)
        later = number > blow.get("at", number) and not blow.get("once") and step[0] in _WRITING
        if "errno" in blow and (due or later):
            raise error_of(getattr(errno, blow["errno"]), step)

    steps = Steps(Path(request["folder"]), strike)
    steps.install()
    sys.argv = [request["module"], *request["arguments"]]
    try:
        run(command_module(request["module"]).main)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1, steps.seen
    except BaseException:
        traceback.print_exc()
        return 1, steps.seen
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0, steps.seen


def error_of(number: int, step: Step) -> OSError:
    """As the system tells it: a name where one was given."""
    named = (step[1],) if step[0] in ("open", "replace", "mkdir", "chmod") else ()
    return OSError(number, os.strerror(number), *named)


def fill(ballast: Path) -> None:
    """Let it take what is left."""
    with ballast.open("ab") as file:
        for size in (2**20, 2**12):
            while True:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), size)
                except OSError:
                    break
                file.seek(size, os.SEEK_CUR)


def cover(folder: str) -> None:
    """Mount a folder over itself, so that nothing can be written there."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


BLOWS: dict[str, Callable[..., object]] = {
    "remove": shutil.rmtree,
    "move": os.rename,
    "mkdir": os.mkdir,
    "mknod": os.mknod,
    "cover": cover,
}


if __name__ == "__main__":
    serve()
