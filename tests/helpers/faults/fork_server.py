"""Fast start of commands, by a fork of a process that has imported everything.

Reads requests from standard input, a JSON object a line, and answers each with a line:

- {"wait": pid, "seconds": N}: exit code of a command, null if it is still running.
- {"run": [word, ...]}: a program run here, where file systems may be mounted that others don't see.
- Otherwise a command: `module`, `arguments`, `output`. Optional are `place` (fields of
  launches.Place), `port` and `fabric` for a start by torchrun's agent, `environment`, `moment` and
  `folder` (see moments.py), `batch_seconds` for each batch of an evaluation, `stdout` and `stderr`
  (files), `threads` (a packer decodes in threads), `open_files` (their limit), `clock_back`
  (seconds), and `finalize` (the interpreter shuts down).
  The answer is the process id of the launcher, or of the one process.

Rank N writes to files named `output` with the endings .outN, .errorN and .rankN (its process id).
"""

import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from core.config.command_line import run
from core.data.pack import workers
from tests.helpers.faults.moments import Moments
from tests.helpers.faults.preloaded_modules import command_module, import_all
from tests.helpers.faults.system_faults import limit_open_files, set_clock_back
from tests.helpers.training.small_run import draw_nothing

# torchrun reads it from the environment; `fabric run` has no flag for it
SIGNALS = "PET_SIGNALS_TO_HANDLE"


def serve() -> None:
    """Answer requests until standard input ends, then kill the commands that are left."""
    import_all()
    draw_nothing()
    # otherwise the garbage collector of each fork copies the pages of all imported objects
    gc.collect()
    gc.freeze()
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    running: set[int] = set()
    for line in sys.stdin:
        request, answer = json.loads(line), dict[str, Any]()
        if "wait" in request:
            answer = {"code": exit_code(request["wait"], request["seconds"])}
            if answer["code"] is not None:
                running.remove(request["wait"])
        elif "run" in request:
            done = subprocess.run(request["run"], capture_output=True, text=True, check=False)
            answer = {"code": done.returncode, "error": done.stderr}
        else:
            tasks = Path("/proc/self/task")
            assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "threads do not survive"
            answer = {"pid": os.fork()}
            if answer["pid"] == 0:
                os.setsid()
                code = launch(request)
                if request.get("finalize"):
                    sys.exit(code)
                # shutting the interpreter down costs half a second
                os._exit(code)
            running.add(answer["pid"])
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def exit_code(pid: int, seconds: float) -> int | None:
    """Exit code of a child that ends in time."""
    watched = os.pidfd_open(pid)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            return None
    finally:
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def launch(request: dict[str, Any]) -> int:
    """Run a launcher or the one process; its exit code."""
    os.environ.update(request.get("environment") or {})
    place = request.get("place") or {"processes": 0}
    if not place["processes"]:
        return command(request)
    for number in (1, 2):
        redirect(number, f"{request['output']}.launcher")
    if request["fabric"]:
        found = {"DEVICES": place["processes"], "NUM_NODES": place["nodes"]}
        found |= {"CLI_USED": 1, "ACCELERATOR": "cpu"}
        os.environ.update({f"LT_{name}": str(value) for name, value in found.items()})
    config = LaunchConfig(
        min_nodes=place["nodes"],
        max_nodes=place["nodes"],
        nproc_per_node=place["processes"],
        run_id="none",
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{request['port']}",
        rdzv_configs={"rank": place["node"], "timeout": 60},
        max_restarts=0,
        start_method="fork",
        signals_to_handle=os.environ.get(SIGNALS, LaunchConfig.signals_to_handle),
    )
    try:
        elastic_launch(config, rank_of_launch)(request)
    except BaseException as error:
        print(f"launcher: {type(error).__name__}", flush=True)
        return 1
    return 0


def rank_of_launch(request: dict[str, Any]) -> None:
    """One rank; a failure ends its process."""
    if code := command(request):
        os._exit(code)
    # torch's agent keeps a rank until all have ended, or terminates it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def command(request: dict[str, Any]) -> int:
    """Run the command in this process; its exit code."""
    output, rank = request["output"], int(os.environ.get("RANK", "0"))
    redirect(1, request.get("stdout") or f"{output}.out{rank}")
    redirect(2, request.get("stderr") or f"{output}.error{rank}")
    Path(f"{output}.rank{rank}").write_text(str(os.getpid()))
    if request.get("threads"):
        decode_in_threads()
    moments = Moments(request, rank)
    moments.install()
    sys.argv = [f"{request['module'].replace('.', '/')}.py", *request["arguments"]]
    module = command_module(request["module"])
    # spawned processes import the main module of this one
    sys.modules["__main__"] = module
    if "clock_back" in request:
        set_clock_back(request["clock_back"])
    if "open_files" in request:
        limit_open_files(request["open_files"])
    code = 0
    try:
        run(module.main)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    moments.write()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def redirect(stream: int, path: str) -> None:
    """Redirect the output of this process to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, stream)
    os.close(file)


def decode_in_threads() -> None:
    """Start no processes of a packer: they need seconds, and their steps would not be seen here."""
    assert hasattr(workers, "ProcessPoolExecutor")
    setattr(  # noqa: B010
        workers, "ProcessPoolExecutor", lambda number, *_, **__: ThreadPoolExecutor(number)
    )
    for name in ("ensure_running", "set_forkserver_preload"):
        setattr(forkserver, name, lambda *_: None)


if __name__ == "__main__":
    serve()
